{{/* What the service is told: facts that several objects need. */}}

{{/* "true" for a run that ends by itself. */}}
{{- define "penstock.isBatch" -}}
{{- if has .Values.workload.kind (list "Job" "CronJob") -}}true{{- end -}}
{{- end }}

{{/* "true" while nobody has named an app of their own. */}}
{{- define "penstock.isDefaultApp" -}}
{{- if eq .Values.app "penstock.log_records:app" -}}true{{- end -}}
{{- end }}

{{/* A list, or a comma-separated string, as the latter. */}}
{{- define "penstock.commas" -}}
{{- kindIs "string" . | ternary . (join "," .) -}}
{{- end }}

{{/*
The consumer group, empty where only the app's code knows it: a group from the environment would
outrank it.
*/}}
{{- define "penstock.group" -}}
{{- if .Values.group -}}
{{- .Values.group -}}
{{- else if include "penstock.isDefaultApp" . -}}
{{- include "penstock.fullname" . -}}
{{- end -}}
{{- end }}

{{/* Seconds that a pod needs at least from the request to its end: see docs/restarts.md. */}}
{{- define "penstock.graceNeeded" -}}
{{- add .Values.drainTimeout 5 -}}
{{- end }}

{{/* Seconds that it gets. */}}
{{- define "penstock.grace" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- add .Values.drainTimeout .Values.terminationGraceMargin -}}
{{- else -}}
{{- int .Values.terminationGracePeriodSeconds -}}
{{- end -}}
{{- end }}

{{/* URLs asked before consuming: those of the values, and of classic mesh proxies. */}}
{{- define "penstock.waitUrls" -}}
{{- $urls := .Values.sidecars.waitUrls -}}
{{- if .Values.mesh.istio.classic }}{{ $urls = append $urls "http://localhost:15021/healthz/ready" }}{{ end -}}
{{- if .Values.mesh.linkerd.classic }}{{ $urls = append $urls "http://localhost:4191/ready" }}{{ end -}}
{{- join "," $urls -}}
{{- end }}

{{/*
URLs asked to quit after the drain, in a Job only: a proxy that ends in a pod that lives on is
started again. The service as a sidecar does not end its pod either.
*/}}
{{- define "penstock.quitUrls" -}}
{{- $urls := .Values.sidecars.quitUrls -}}
{{- if and (include "penstock.isBatch" .) (not .Values.asSidecar.enabled) -}}
{{- if .Values.mesh.istio.classic }}{{ $urls = append $urls "http://localhost:15020/quitquitquit" }}{{ end -}}
{{- if .Values.mesh.linkerd.classic }}{{ $urls = append $urls "http://localhost:4191/shutdown" }}{{ end -}}
{{- end -}}
{{- join "," $urls -}}
{{- end }}

{{/* The exit contract, as `penstock exits --json` prints it. */}}
{{- define "penstock.exits" -}}
{{- .Files.Get "files/exits.json" -}}
{{- end }}

{{/* The planned code that restarts: 4. The other one, 0, is a stop. */}}
{{- define "penstock.restartCode" -}}
{{- range include "penstock.exits" . | fromJsonArray -}}
{{- if and .planned (ne .code "0") }}{{ .code }}{{ end -}}
{{- end -}}
{{- end }}

{{/* Codes that trying again will not mend: bad command line, bad configuration. */}}
{{- define "penstock.hopelessCodes" -}}
{{- range include "penstock.exits" . | fromJsonArray -}}
{{- if has .name (list "USAGE" "CONFIG") }}
- {{ .code }}
{{- end -}}
{{- end -}}
{{- end }}
