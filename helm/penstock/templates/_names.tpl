{{/* The chart's name, as it stands in labels. */}}
{{- define "penstock.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{/*
The release's full name. At most 52 characters of the 63 that a name may have: a CronJob appends
11 for its Jobs, a StatefulSet as many for its revisions.
*/}}
{{- define "penstock.fullname" -}}
{{- $name := include "penstock.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* What the pods of this release have in common for as long as it lives. */}}
{{- define "penstock.selectorLabels" -}}
app.kubernetes.io/name: {{ include "penstock.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The labels of every object. */}}
{{- define "penstock.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "penstock.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/*
The pod of `helm test`: not one of the selector's, or the workload, its PodDisruptionBudget and
its PodMonitor would take it for theirs.
*/}}
{{- define "penstock.testLabels" -}}
app.kubernetes.io/name: {{ include "penstock.name" . }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "penstock.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "penstock.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "penstock.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{/* The Secret with the control token; empty where each start makes a token of its own. */}}
{{- define "penstock.controlSecret" -}}
{{- if .Values.control.existingSecret -}}
{{- .Values.control.existingSecret -}}
{{- else if .Values.control.createSecret -}}
{{- include "penstock.fullname" . }}-control
{{- end -}}
{{- end }}

{{/* The Secret with the SASL password, if there is one. */}}
{{- define "penstock.saslSecret" -}}
{{- with .Values.kafka.sasl -}}
{{- if .existingSecret -}}
{{- .existingSecret -}}
{{- else if .password -}}
{{- include "penstock.fullname" $ }}-sasl
{{- end -}}
{{- end -}}
{{- end }}
