{{/* The pod template of all four kinds: metadata and spec. */}}
{{- define "penstock.podTemplate" -}}
metadata:
  labels:
    {{- include "penstock.selectorLabels" . | nindent 4 }}
    {{- with merge (deepCopy .Values.podLabels) .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with include "penstock.podAnnotations" . }}
  annotations:
    {{- . | nindent 4 }}
  {{- end }}
spec:
  {{- if include "penstock.isBatch" . }}
  # A failed pod is replaced as a whole, so that the Job can judge its exit code.
  restartPolicy: Never
  {{- end }}
  serviceAccountName: {{ include "penstock.serviceAccountName" . }}
  automountServiceAccountToken: false
  # A Service called "penstock" would otherwise put its address into PENSTOCK_* names.
  enableServiceLinks: false
  {{- if .Values.stopSignal }}
  os:
    name: linux # a stop signal of one's own needs it (KEP-4960)
  {{- end }}
  terminationGracePeriodSeconds: {{ include "penstock.grace" . }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "penstock.initContainers" . | trim }}
  initContainers:
    {{- . | nindent 4 }}
  {{- end }}
  containers:
    {{- if .Values.asSidecar.enabled }}
    {{- toYaml .Values.asSidecar.mainContainers | nindent 4 }}
    {{- else }}
    - {{ include "penstock.container" . | indent 6 | trim }}
    {{- end }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "penstock.volumes" . | nindent 4 }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  {{- $ours := dict "labelSelector" (dict "matchLabels" (include "penstock.selectorLabels" $ | fromYaml)) }}
  topologySpreadConstraints:
    {{- range . }}
    {{- $constraint := hasKey . "labelSelector" | ternary dict (deepCopy $ours) }}
    - {{ merge $constraint . | toYaml | indent 6 | trim }}
    {{- end }}
  {{- end }}
{{- end }}

{{/* Annotations of the pods: the user's, which win, what the meshes want, and what rolls them. */}}
{{- define "penstock.podAnnotations" -}}
{{- $annotations := deepCopy .Values.podAnnotations -}}
{{- $linger := include "penstock.graceNeeded" . -}}
{{- if .Values.handlers.files -}}
{{- $_ := set $annotations "checksum/config" (.Values.handlers.files | toJson | sha256sum) -}}
{{- end -}}
{{- if .Values.mesh.istio.classic -}}
{{- $config := dict "holdApplicationUntilProxyStarts" true "terminationDrainDuration" (printf "%ss" $linger) -}}
{{- $annotations = merge $annotations (dict "proxy.istio.io/config" (toJson $config)) -}}
{{- end -}}
{{- if .Values.mesh.linkerd.classic -}}
{{- $annotations = merge $annotations (dict
      "config.linkerd.io/proxy-await" "enabled"
      "config.alpha.linkerd.io/proxy-wait-before-exit-seconds" $linger) -}}
{{- if include "penstock.quitUrls" . -}}
{{- $annotations = merge $annotations (dict "config.linkerd.io/proxy-admin-shutdown" "enabled") -}}
{{- end -}}
{{- end -}}
{{- with $annotations }}{{ toYaml . }}{{ end -}}
{{- end }}

{{/*
Native sidecars in their order, then what runs to its end, then the service where it is a sidecar:
each is started when everything before it is up or done.
*/}}
{{- define "penstock.initContainers" -}}
{{- range .Values.nativeSidecars }}
- {{ merge (deepCopy .) (dict "restartPolicy" "Always") | toYaml | indent 2 | trim }}
{{- end }}
{{- with .Values.initContainers }}
{{ toYaml . }}
{{- end }}
{{- if .Values.asSidecar.enabled }}
- {{ include "penstock.container" . | indent 2 | trim }}
{{- end }}
{{- end }}

{{- define "penstock.volumes" -}}
# The journal of exits: outlives the container, not the pod.
- name: state
  emptyDir:
    sizeLimit: {{ .Values.volumes.stateSizeLimit }}
- name: runtime
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.volumes.tmpSizeLimit }}
{{- with include "penstock.controlSecret" . }}
- name: control
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - key: token
        path: token
{{- end }}
{{- with include "penstock.saslSecret" . }}
- name: sasl
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
      - key: {{ $.Values.kafka.sasl.existingSecret | empty | ternary "password" $.Values.kafka.sasl.passwordKey }}
        path: password
{{- end }}
{{- with .Values.kafka.tls }}
{{- if .caSecret }}
- name: tls-ca
  secret:
    secretName: {{ .caSecret }}
    defaultMode: 0440
    items:
      - key: {{ .caKey }}
        path: ca.crt
{{- end }}
{{- if .clientSecret }}
- name: tls-client
  secret:
    secretName: {{ .clientSecret }}
    defaultMode: 0440
    items:
      - key: {{ .certKey }}
        path: tls.crt
      - key: {{ .keyKey }}
        path: tls.key
{{- end }}
{{- end }}
{{- if .Values.handlers.files }}
- name: handlers
  configMap:
    name: {{ include "penstock.fullname" . }}-handlers
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
