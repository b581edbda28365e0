{{/* The chart's name, cut to what a label takes. */}}
{{- define "stoker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of everything namespaced: the release's, with "stoker" in it. 52 characters leave room for suffixes. */}}
{{- define "stoker.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "stoker.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "stoker.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* The name of everything cluster-scoped: releases of the same name in two namespaces do not collide. */}}
{{- define "stoker.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "stoker.fullname" .) }}
{{- end }}

{{- define "stoker.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "stoker.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name: name the ServiceAccount to use, or set serviceAccount.create" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Labels that never change: a Deployment's selector is immutable. */}}
{{- define "stoker.selectorLabels" -}}
app.kubernetes.io/name: {{ include "stoker.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stoker.labels" -}}
{{ include "stoker.selectorLabels" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: stoker
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* repository:tag, repository@digest, or both: with a digest the tag is for people alone. */}}
{{- define "stoker.image" -}}
{{- $image := .Values.image }}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) }}
{{- with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/*
What the operator does, and nothing else. tests/cluster/test_install.py runs its clients with exactly this, and
fails when a rule is missing, and when there is one that nobody has argued for.
*/}}
{{- define "stoker.rules" -}}
- apiGroups: [stoker.dev]
  resources: [modeldeployments]
  verbs: [get, list, watch]
- apiGroups: [stoker.dev]
  resources: [modeldeployments/status]
  verbs: [patch]
# Where OwnerReferencesPermissionEnforcement is on (OpenShift), setting blockOwnerDeletion on a pod needs it.
- apiGroups: [stoker.dev]
  resources: [modeldeployments/finalizers]
  verbs: [update]
# Replicas. patch is for the labels that route and drain them, delete for those that have drained.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
# Services go with their ModelDeployment, by garbage collection. Server-side apply needs create and patch.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
# A repeated Event is patched: its count grows.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
