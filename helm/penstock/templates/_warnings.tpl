{{/* What works, but not the way one might think: told in the notes. */}}
{{- define "penstock.warnings" -}}
{{- $isBatch := include "penstock.isBatch" . }}
{{- if include "penstock.isDefaultApp" . }}
- {{ .Values.app }} logs keys and values of all records: for a first look, not for keeping.
{{- else if and (eq .Values.image.repository "penstock") (not (or .Values.handlers.files .Values.extraVolumeMounts)) }}
- app is {{ .Values.app }}, but image.repository is still penstock, which has no such module: without an image of your own the pods exit 78.
{{- end }}
{{- if .Values.handlers.files }}
- handlers.files is for trying out: what runs should be in an image, tested and versioned.
{{- end }}
{{- if .Values.kafka.sasl.password }}
- kafka.sasl.password is in the history of the release: prefer kafka.sasl.existingSecret.
{{- end }}
{{- if eq .Values.restartPolicy "rules" }}
- restartPolicy=rules: a crash ends the pod, and a new one starts at once: the kubelet's back-off does not slow a crash loop down.
{{- end }}
{{- if and (eq .Values.restartPolicy "rules") (eq .Values.workload.kind "StatefulSet") }}
- restartPolicy=rules in a StatefulSet: its controller deletes a Failed pod at once, and what it exited with goes with it: the alerts see that the pod was away, not why.
{{- end }}
{{- if .Values.stopSignal }}
- stopSignal works only with the cluster's gate ContainerStopSignals on: otherwise a rollout's pods get TERM and exit 0, not {{ include "penstock.restartCode" . }}.
{{- else if not (or .Values.preStop.enabled .Values.lifecycle.preStop) }}
- preStop.enabled=false: a rollout's pods get a plain TERM and exit 0, not {{ include "penstock.restartCode" . }}.
{{- end }}
{{- range .Values.nativeSidecars }}
{{- if not .startupProbe }}
- nativeSidecars: {{ .name }} has no startupProbe: it is started before the service, but not waited for.
{{- end }}
{{- end }}
{{- if and $isBatch .Values.extraContainers (not (include "penstock.quitUrls" .)) }}
- extraContainers in a {{ .Values.workload.kind }}: one that does not end by itself keeps the pod for ever; name its quit URL in sidecars.quitUrls, or use nativeSidecars.
{{- end }}
{{- if or .Values.mesh.istio.classic .Values.mesh.linkerd.classic }}
- The mesh's proxy is kept up through the drain: each pod takes {{ include "penstock.graceNeeded" . }} s to end.
{{- end }}
{{- if and $isBatch .Values.asSidecar.enabled (or .Values.mesh.istio.classic .Values.mesh.linkerd.classic) }}
- asSidecar in a {{ .Values.workload.kind }}: a main container has to end the mesh's proxy, or the pod never ends.
{{- end }}
{{- if and .Values.networkPolicy.enabled (or .Values.mesh.istio.classic .Values.mesh.linkerd.classic) }}
- networkPolicy: the proxy has to reach its control plane; see networkPolicy.egress.extra.
{{- end }}
{{- if and .Values.asSidecar.enabled .Values.preStop.enabled (not .Values.stopSignal) }}
- asSidecar: the preStop hook runs when the pod's end begins. If the service has to go on until the main containers are gone, set preStop.enabled=false.
{{- end }}
{{- if and .Values.control.createSecret (not .Values.control.existingSecret) .Release.IsUpgrade (not (lookup "v1" "Secret" .Release.Namespace (include "penstock.controlSecret" .))) }}
- The control token is new: the cluster could not be asked for the old one. It takes effect with each container's next start.
{{- end }}
{{- if and .Values.staticMembership.enabled (lt (float64 .Values.kafka.sessionTimeout) 45.0) }}
- kafka.sessionTimeout is {{ .Values.kafka.sessionTimeout }} s: a pod that takes longer to come back loses its seat, and the group rebalances after all.
{{- end }}
{{- end }}
