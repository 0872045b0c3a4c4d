{{/* The service's container; in `asSidecar` a native sidecar, which is an init container that stays. */}}
{{- define "penstock.container" -}}
name: penstock
image: {{ include "penstock.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
# Named, so that any image that has penstock on its path will do.
command:
  - penstock
args:
  - run
  - {{ .Values.app | quote }}
{{- if .Values.asSidecar.enabled }}
restartPolicy: Always
{{- else if eq .Values.restartPolicy "rules" }}
# Started again in place after a planned restart only; anything else ends the pod (KEP-5307).
restartPolicy: Never
restartPolicyRules:
  - action: Restart
    exitCodes:
      operator: In
      values:
        - {{ include "penstock.restartCode" . }}
{{- end }}
env:
  {{- include "penstock.env" . | nindent 2 }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - name: http
    containerPort: {{ .Values.http.port }}
    protocol: TCP
startupProbe:
  {{- include "penstock.probe" (dict "path" "/startupz" "timing" .Values.probes.startup) | nindent 2 }}
livenessProbe:
  {{- include "penstock.probe" (dict "path" "/livez" "timing" .Values.probes.liveness) | nindent 2 }}
readinessProbe:
  {{- include "penstock.probe" (dict "path" "/readyz" "timing" .Values.probes.readiness) | nindent 2 }}
{{- with include "penstock.lifecycle" . }}
lifecycle:
  {{- . | nindent 2 }}
{{- end }}
{{- with include "penstock.resources" . }}
resources:
  {{- . | nindent 2 }}
{{- end }}
{{- with .Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
# The exit record: code, name, reason, and what blocked the drain. The log's end where there is none.
terminationMessagePath: /dev/termination-log
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:
  - name: state
    mountPath: /var/lib/penstock
  - name: runtime
    mountPath: /run/penstock
  - name: tmp
    mountPath: /tmp
  {{- if include "penstock.controlSecret" . }}
  # By subPath, which stays as it was at the container's start: the service reads the token once,
  # and the preStop hook has to know the same.
  - name: control
    mountPath: /etc/penstock/control/token
    subPath: token
    readOnly: true
  {{- end }}
  {{- if include "penstock.saslSecret" . }}
  - name: sasl
    mountPath: /etc/penstock/sasl
    readOnly: true
  {{- end }}
  {{- if .Values.kafka.tls.caSecret }}
  - name: tls-ca
    mountPath: /etc/penstock/tls/ca
    readOnly: true
  {{- end }}
  {{- if .Values.kafka.tls.clientSecret }}
  - name: tls-client
    mountPath: /etc/penstock/tls/client
    readOnly: true
  {{- end }}
  {{- if .Values.handlers.files }}
  - name: handlers
    mountPath: /handlers
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "penstock.probe" -}}
httpGet:
  path: {{ .path }}
  port: http
{{- with .timing }}
periodSeconds: {{ .periodSeconds }}
timeoutSeconds: {{ .timeoutSeconds }}
failureThreshold: {{ .failureThreshold }}
{{- end }}
{{- end }}

{{/*
The preStop hook, unless the stop signal itself asks for a restart: after a held restart, only
TERM releases the service.
*/}}
{{- define "penstock.lifecycle" -}}
{{- $lifecycle := deepCopy .Values.lifecycle -}}
{{- if .Values.stopSignal -}}
{{- $_ := set $lifecycle "stopSignal" .Values.stopSignal -}}
{{- else if and .Values.preStop.enabled (not $lifecycle.preStop) -}}
{{- $_ := set $lifecycle "preStop" (dict "exec" (dict "command" (list "penstock" "prestop"))) -}}
{{- end -}}
{{- with $lifecycle }}{{ toYaml . }}{{ end -}}
{{- end }}
