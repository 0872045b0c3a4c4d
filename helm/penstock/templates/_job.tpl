{{/* The spec of a batch run, for Job and CronJob. */}}
{{- define "penstock.jobSpec" -}}
{{- with .Values.job -}}
parallelism: {{ .parallelism }}
completions: {{ kindIs "invalid" .completions | ternary .parallelism .completions }}
backoffLimit: {{ .backoffLimit }}
{{- if not (kindIs "invalid" .activeDeadlineSeconds) }}
activeDeadlineSeconds: {{ int .activeDeadlineSeconds }}
{{- end }}
{{- /* A CronJob has history limits of its own, which a time to live would undercut. */ -}}
{{- if and (eq $.Values.workload.kind "Job") (not (kindIs "invalid" .ttlSecondsAfterFinished)) }}
ttlSecondsAfterFinished: {{ int .ttlSecondsAfterFinished }}
{{- end }}
{{- end }}
podFailurePolicy:
  rules:
    # Evicted, preempted, drained: nobody's failure.
    - action: Ignore
      onPodConditions:
        - type: DisruptionTarget
          status: "True"
    {{- if not .Values.asSidecar.enabled }}
    # Restarted on purpose: replaced, and not counted towards backoffLimit.
    - action: Ignore
      onExitCodes:
        containerName: penstock
        operator: In
        values:
          - {{ include "penstock.restartCode" . }}
    # Bad command line or configuration: another try would end the same way.
    - action: FailJob
      onExitCodes:
        containerName: penstock
        operator: In
        values:
          {{- include "penstock.hopelessCodes" . | trim | nindent 10 }}
    {{- end }}
template:
  {{- include "penstock.podTemplate" . | nindent 2 }}
{{- end }}
