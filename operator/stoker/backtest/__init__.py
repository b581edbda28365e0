"""``stoker backtest``: what a spec would have done with traffic that Prometheus has recorded.

============  =========================================================================
`manifest`    a ModelDeployment from a file, or what the API server would refuse about it
`period`      ``--from``, ``--to`` and ``--step``
`history`     the recorded series, read in chunks: the same PromQL as live, as range queries
`recorded`    which replicas there were and when, from their samples alone
`decider`     the operator's own decisions, one instant after the other, in virtual time
`fleet`       replicas that start late and cost from creation to deletion
`replay`      both fleets through the whole period
`report`      what came of it, in numbers
`export`      the same as JSON
`terminal`    the same for a person
`picture`     the same as a PNG
`runner`      all of it in order
`command`     the command line
============  =========================================================================
"""
