"""The Dockerfile and the locked requirements: read here, since no test machine has to have Docker."""

import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

LOCKS = ("build", "dev", "operator")
HASHED = re.compile(
    r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; .+)? \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+"
)


@pytest.fixture(scope="session")
def dockerfile(repository: Path) -> str:
    """Its instructions, each on one line, without comments."""
    text = re.sub(r"^#.*\n", "", (repository / "Dockerfile").read_text(), flags=re.MULTILINE)
    return re.sub(r"\\\n\s*", "", text)


def rules(file: Path) -> list[str]:
    """The lines of a file that are not comments."""
    return [line for line in file.read_text().splitlines() if line and not line.startswith("#")]


def lock(repository: Path, name: str) -> str:
    return (repository / "requirements" / f"{name}.txt").read_text()


def locked(text: str) -> Iterator[tuple[str, str]]:
    """(name, version) of everything in a lock that has a hash."""
    for entry in re.split(r"\n(?=[a-z0-9])", text):
        if found := HASHED.match(entry + "\n"):
            yield found["name"], found["version"]


def wanted(repository: Path, name: str) -> list[Requirement]:
    """What a lock has to hold, by what asks for it."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    build = rules(repository / "requirements" / "build.in")
    texts = {
        "build": [*project["build-system"]["requires"], *build],
        "operator": project["project"]["dependencies"],
        "dev": [*project["project"]["dependencies"], *groups["testbed"], *groups["dev"], *build],
    }
    return [Requirement(text) for text in texts[name] if isinstance(text, str)]


# --- Locks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_of_a_lock_is_pinned_and_hashed(repository, name):
    text = lock(repository, name)
    pins = re.findall(r"^[a-z0-9][^\s=]*", text, re.MULTILINE)
    assert pins
    assert pins == [package for package, _ in locked(text)]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_what_the_project_asks_for(repository, name):
    versions = dict(locked(lock(repository, name)))
    for requirement in wanted(repository, name):
        package = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert package in versions, f"{requirement} is in no lock: run `make lock`"
        assert requirement.specifier.contains(versions[package]), f"{requirement}: run `make lock`"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_index(repository, name):
    text = lock(repository, name)
    assert not re.search(r"https?:|file:|--(extra-)?index-url|--find-links|^-", text, re.MULTILINE)


def test_the_locks_agree(repository):
    dev = dict(locked(lock(repository, "dev")))
    for name in ("build", "operator"):
        assert dict(locked(lock(repository, name))).items() <= dev.items(), "run `make lock`"


# --- The image ---------------------------------------------------------------------------------------


def test_everything_from_an_index_is_hashed(dockerfile):
    installs = re.findall(r"pip (?:--python \S+ )?(?:install|wheel) [^&\n]*", dockerfile)
    assert installs
    for command in installs:
        assert "--require-hashes" in command or "--no-index" in command, command


def test_the_base_image_can_be_pinned_by_digest(dockerfile):
    assert "ARG PYTHON_IMAGE=python:3.13-slim\n" in dockerfile
    assert re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE) == ["${PYTHON_IMAGE}"] * 2


def test_it_runs_as_the_user_that_the_chart_says(dockerfile, render):
    (user,) = re.findall(r"^USER (\S+)", dockerfile, re.MULTILINE)
    (deployment,) = (obj for obj in render() if obj["kind"] == "Deployment")
    context = deployment["spec"]["template"]["spec"]["securityContext"]
    assert user == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert dockerfile.index("USER") > dockerfile.index("COPY --from=build")


def test_it_runs_the_operator(dockerfile, repository):
    entry = yaml.safe_load(re.findall(r"^ENTRYPOINT (.*)", dockerfile, re.MULTILINE)[0])
    command = yaml.safe_load(re.findall(r"^CMD (.*)", dockerfile, re.MULTILINE)[0])
    assert [*entry, *command] == ["stoker", "run"]
    assert entry[0] in tomllib.loads((repository / "pyproject.toml").read_text())["project"]["scripts"]


def test_what_it_copies_exists_and_is_not_ignored(dockerfile, repository):
    ignored = rules(repository / ".dockerignore")
    kept = [rule.removeprefix("!") for rule in ignored if rule.startswith("!")]
    assert "*" in ignored
    copies = re.findall(r"^COPY (?!--from)(.*)", dockerfile, re.MULTILINE)
    for source in [word for line in copies for word in line.split()[:-1]]:
        assert (repository / source).exists(), source
        assert any(fnmatch(source.split("/")[0], rule) for rule in kept), source


def test_the_wheel_is_made_of_what_is_copied(dockerfile, repository):
    """README and licences are read by the build, so the image cannot be built without them."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    copied = " ".join(re.findall(r"^COPY (?!--from)(.*)", dockerfile, re.MULTILINE))
    for file in (project["readme"], *project["license-files"], "pyproject.toml", "operator/"):
        assert file in copied
