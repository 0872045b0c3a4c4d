{{/*
The container's environment, as a list of EnvVar, but for extraEnv. In the order of
docs/settings.md; whatever is not set here is left to the app's code, which the environment would
outrank.
*/}}
{{- define "penstock.env" -}}
- name: PENSTOCK_BOOTSTRAP_SERVERS
  value: {{ include "penstock.commas" .Values.kafka.bootstrapServers | quote }}
{{- with include "penstock.group" . }}
- name: PENSTOCK_GROUP_ID
  value: {{ . | quote }}
{{- end }}
{{- with include "penstock.commas" .Values.topics }}
- name: PENSTOCK_TOPICS
  value: {{ . | quote }}
{{- end }}
- name: PENSTOCK_SESSION_TIMEOUT
  value: {{ .Values.kafka.sessionTimeout | toJson | quote }}
{{- if .Values.staticMembership.enabled }}
# The pod's name comes back with the next pod, and with it the seat in the group.
- name: PENSTOCK_INSTANCE_ID
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: PENSTOCK_STABLE_IDENTITY
  value: "true"
{{- end }}
{{- include "penstock.env.security" . }}
{{- with include "penstock.waitUrls" . }}
- name: PENSTOCK_WAIT_URLS
  value: {{ . | quote }}
- name: PENSTOCK_WAIT_TIMEOUT
  value: {{ $.Values.sidecars.waitTimeout | toJson | quote }}
{{- end }}
- name: PENSTOCK_DRAIN_TIMEOUT
  value: {{ .Values.drainTimeout | toJson | quote }}
{{- with include "penstock.quitUrls" . }}
- name: PENSTOCK_QUIT_URLS
  value: {{ . | quote }}
{{- end }}
{{- if and (include "penstock.isBatch" .) (not .Values.asSidecar.enabled) }}
- name: PENSTOCK_STOP_WHEN_CAUGHT_UP
  value: "true"
{{- end }}
- name: PENSTOCK_HTTP_PORT
  value: {{ .Values.http.port | toJson | quote }}
{{- if include "penstock.controlSecret" . }}
- name: PENSTOCK_CONTROL_TOKEN_FILE
  value: /etc/penstock/control/token
{{- end }}
# Below the mount: a directory that it makes itself is one that it can trust.
- name: PENSTOCK_RUNTIME_DIR
  value: /run/penstock/control
- name: PENSTOCK_STATE_DIR
  value: /var/lib/penstock
{{- range $name, $value := .Values.settings }}
- name: PENSTOCK_{{ upper $name }}
  value: {{ include "penstock.settingText" $value | quote }}
{{- end }}
{{- if .Values.handlers.files }}
- name: PYTHONPATH
  value: /handlers
{{- end }}
{{- end }}

{{/* How the brokers are spoken to: SASL and TLS. */}}
{{- define "penstock.env.security" -}}
{{- with .Values.kafka }}
{{- if ne .securityProtocol "PLAINTEXT" }}
- name: PENSTOCK_SECURITY_PROTOCOL
  value: {{ .securityProtocol }}
{{- end }}
{{- if .sasl.mechanism }}
- name: PENSTOCK_SASL_MECHANISM
  value: {{ .sasl.mechanism }}
{{- end }}
{{- if .sasl.username }}
- name: PENSTOCK_SASL_USERNAME
  value: {{ .sasl.username | quote }}
{{- else if .sasl.usernameKey }}
- name: PENSTOCK_SASL_USERNAME
  valueFrom:
    secretKeyRef:
      name: {{ .sasl.existingSecret }}
      key: {{ .sasl.usernameKey }}
{{- end }}
{{- if include "penstock.saslSecret" $ }}
- name: PENSTOCK_SASL_PASSWORD_FILE
  value: /etc/penstock/sasl/password
{{- end }}
{{- if .tls.caSecret }}
- name: PENSTOCK_SSL_CAFILE
  value: /etc/penstock/tls/ca/ca.crt
{{- end }}
{{- if .tls.clientSecret }}
- name: PENSTOCK_SSL_CERTFILE
  value: /etc/penstock/tls/client/tls.crt
- name: PENSTOCK_SSL_KEYFILE
  value: /etc/penstock/tls/client/tls.key
{{- if .tls.keyPasswordKey }}
- name: PENSTOCK_SSL_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .tls.clientSecret }}
      key: {{ .tls.keyPasswordKey }}
{{- end }}
{{- end }}
{{- if not .tls.checkHostname }}
- name: PENSTOCK_SSL_CHECK_HOSTNAME
  value: "false"
{{- end }}
{{- end }}
{{- end }}

{{/* A value as the environment has it. toJson, because 1000000 is a float here and would be 1e+06. */}}
{{- define "penstock.settingText" -}}
{{- if kindIs "string" . -}}
{{- . -}}
{{- else if kindIs "slice" . -}}
{{- join "," . -}}
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end }}
