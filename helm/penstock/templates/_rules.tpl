{{/*
The groups of files/rules.yaml, for this release only: every selector there carries the same
text, which is replaced. No tpl: the alerts' own templates are Prometheus' business. Pods are
named after their kind, exactly: those of a release "orders-eu" are not those of "orders".
*/}}
{{- define "penstock.ruleGroups" -}}
{{- $anchor := `container="penstock"` -}}
{{- $ends := dict "Deployment" "[a-z0-9]+-[a-z0-9]{5}" "StatefulSet" "[0-9]+" -}}
{{- $end := get $ends .Values.workload.kind | default "[0-9]+-[a-z0-9]{5}" -}}
{{- $scope := printf `%s,namespace="%s",pod=~"%s-%s"` $anchor .Release.Namespace (include "penstock.fullname" .) $end -}}
{{- $rules := .Files.Get "files/rules.yaml" | replace $anchor $scope | fromYaml -}}
{{- $base := .Values.prometheusRule.runbookBaseUrl | trimSuffix "/" -}}
{{- $groups := list -}}
{{- range $rules.groups -}}
{{- $kept := list -}}
{{- range .rules -}}
{{- if not (has .alert $.Values.prometheusRule.disabled) -}}
{{- $kept = append $kept . -}}
{{- if and $base .annotations.runbook -}}
{{- $_ := set .annotations "runbook_url" (printf "%s/%s" $base .annotations.runbook) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $kept -}}
{{- $groups = append $groups (set . "rules" $kept) -}}
{{- end -}}
{{- end -}}
{{- toYaml $groups -}}
{{- end }}

{{/* The names of all alerts, as JSON. */}}
{{- define "penstock.alertNames" -}}
{{- $names := list -}}
{{- range (.Files.Get "files/rules.yaml" | fromYaml).groups -}}
{{- range .rules -}}
{{- with .alert }}{{ $names = append $names . }}{{ end -}}
{{- end -}}
{{- end -}}
{{- toJson $names -}}
{{- end }}
