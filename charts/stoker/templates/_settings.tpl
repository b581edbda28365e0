{{/* What no single value shows, and the operator would refuse at its start. */}}
{{- define "stoker.contradictions" -}}
{{- with .Values.prometheus }}
{{- if and .bearerToken.secretName .bearerToken.file }}
{{- fail "prometheus.bearerToken: set secretName or file, not both" }}
{{- end }}
{{- if and .basicAuth.username (or .bearerToken.secretName .bearerToken.file) }}
{{- fail "prometheus.basicAuth and prometheus.bearerToken exclude each other: set only one of them" }}
{{- end }}
{{- if and .ca.secretName .ca.configMapName }}
{{- fail "prometheus.ca: set secretName or configMapName, not both" }}
{{- end }}
{{- end }}
{{- with .Values.scaling }}
{{- if le (float64 .staleAfterSeconds) (float64 .intervalSeconds) }}
{{- fail (printf "scaling.staleAfterSeconds (%v) must be longer than scaling.intervalSeconds (%v)" .staleAfterSeconds .intervalSeconds) }}
{{- end }}
{{- end }}
{{- end }}

{{/*
From values to the operator's environment (operator/stoker/settings.py). Only what differs from nothing is set; a
secret goes through a file, which is read again when it changes, never through a variable.
*/}}
{{- define "stoker.env" -}}
{{- $prometheus := .Values.prometheus }}
{{- $settings := list
  (list "NAMESPACES" (join "," .Values.watchNamespaces))
  (list "PROMETHEUS_URL" $prometheus.url)
  (list "PROMETHEUS_TIMEOUT_SECONDS" $prometheus.timeoutSeconds)
  (list "PROMETHEUS_BEARER_TOKEN_FILE" (include "stoker.bearerTokenFile" .))
  (list "PROMETHEUS_USERNAME" $prometheus.basicAuth.username)
  (list "PROMETHEUS_PASSWORD_FILE" (include "stoker.passwordFile" .))
  (list "PROMETHEUS_CA_FILE" (include "stoker.caFile" .))
  (list "PROMETHEUS_INSECURE_SKIP_VERIFY" (ternary "true" "" $prometheus.insecureSkipVerify))
  (list "PROMETHEUS_HEADERS" (include "stoker.headers" .))
  (list "SCALING_INTERVAL_SECONDS" .Values.scaling.intervalSeconds)
  (list "STALE_AFTER_SECONDS" .Values.scaling.staleAfterSeconds)
  (list "RESYNC_SECONDS" .Values.controller.resyncSeconds)
  (list "WORKERS" .Values.controller.workers)
  (list "KUBE_QPS" .Values.kubeApi.qps)
  (list "KUBE_BURST" .Values.kubeApi.burst)
  (list "KUBE_CONCURRENCY" .Values.kubeApi.concurrency)
  (list "KUBE_TIMEOUT_SECONDS" .Values.kubeApi.timeoutSeconds)
  (list "LOG_FORMAT" .Values.log.format)
  (list "LOG_LEVEL" .Values.log.level)
}}
{{- range $settings }}
{{- if ne (toString (last .)) "" }}
- name: STOKER_{{ first . }}
  value: {{ last . | toString | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* name=value pairs with commas between, values percent-encoded; the operator does not read "+" as a space. */}}
{{- define "stoker.headers" -}}
{{- $pairs := list }}
{{- range $name, $value := .Values.prometheus.headers }}
{{- $pairs = append $pairs (printf "%s=%s" $name ($value | urlquery | replace "+" "%20")) }}
{{- end }}
{{- join "," $pairs }}
{{- end }}

{{- define "stoker.bearerTokenFile" -}}
{{- $token := .Values.prometheus.bearerToken }}
{{- if $token.secretName }}/etc/stoker/prometheus-token/{{ $token.key }}{{ else }}{{ $token.file }}{{ end }}
{{- end }}

{{- define "stoker.passwordFile" -}}
{{- with .Values.prometheus.basicAuth }}
{{- if .secretName }}/etc/stoker/prometheus-password/{{ .key }}{{ end }}
{{- end }}
{{- end }}

{{- define "stoker.caFile" -}}
{{- with .Values.prometheus.ca }}
{{- if or .secretName .configMapName }}/etc/stoker/prometheus-ca/{{ .key }}{{ end }}
{{- end }}
{{- end }}

{{/* Whole directories, not subPath: the kubelet never updates a subPath mount, so a rotated token would not arrive. */}}
{{- define "stoker.mounts" -}}
{{- with .Values.prometheus }}
{{- if .bearerToken.secretName }}
- name: prometheus-token
  mountPath: /etc/stoker/prometheus-token
  readOnly: true
{{- end }}
{{- if .basicAuth.secretName }}
- name: prometheus-password
  mountPath: /etc/stoker/prometheus-password
  readOnly: true
{{- end }}
{{- if or .ca.secretName .ca.configMapName }}
- name: prometheus-ca
  mountPath: /etc/stoker/prometheus-ca
  readOnly: true
{{- end }}
{{- end }}
{{- end }}

{{- define "stoker.volumes" -}}
{{- with .Values.prometheus }}
{{- with .bearerToken }}
{{- if .secretName }}
- name: prometheus-token
  secret:
    secretName: {{ .secretName }}
    items: [{key: {{ .key | quote }}, path: {{ .key | quote }}}]
{{- end }}
{{- end }}
{{- with .basicAuth }}
{{- if .secretName }}
- name: prometheus-password
  secret:
    secretName: {{ .secretName }}
    items: [{key: {{ .key | quote }}, path: {{ .key | quote }}}]
{{- end }}
{{- end }}
{{- with .ca }}
{{- if .secretName }}
- name: prometheus-ca
  secret:
    secretName: {{ .secretName }}
    items: [{key: {{ .key | quote }}, path: {{ .key | quote }}}]
{{- else if .configMapName }}
- name: prometheus-ca
  configMap:
    name: {{ .configMapName }}
    items: [{key: {{ .key | quote }}, path: {{ .key | quote }}}]
{{- end }}
{{- end }}
{{- end }}
{{- end }}
