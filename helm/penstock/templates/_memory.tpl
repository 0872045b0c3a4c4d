{{/*
How much memory the container may take, as the service itself computes it (app/penstock/memory.py,
whose figures are in files/memory.json). As JSON: `request` and `limit` in Mi, and `sum`, the
arithmetic in MB.
*/}}
{{- define "penstock.memory" -}}
{{- $facts := .Files.Get "files/memory.json" | fromJson -}}
{{- $s := mergeOverwrite (deepCopy $facts.settings) .Values.settings -}}
{{- $processes := mul (int64 $s.workers) (int64 .Values.memory.subscriptions) -}}
{{- $fetch := add (mul (int64 $facts.copies) (int64 $s.fetch_bytes)) (mul (int64 $facts.record) (int64 $s.max_poll_records)) -}}
{{- $handlers := include "penstock.bytes" .Values.memory.handlers | int64 -}}
{{- $worker := add (int64 $facts.worker) (int64 $s.buffer_bytes) $fetch $handlers -}}
{{- $total := add (int64 $facts.supervisor) (mul $processes $worker) -}}
{{- $high := float64 $s.memory_high | default 1.0 -}}
{{- $least := divf $total $high | ceil | int64 -}}
{{- $sum := printf "supervisor %s + %d x (base %s + buffer %s + fetch %s + handlers %s) = %s MB" (include "penstock.mb" $facts.supervisor) $processes (include "penstock.mb" $facts.worker) (include "penstock.mb" $s.buffer_bytes) (include "penstock.mb" $fetch) (include "penstock.mb" $handlers) (include "penstock.mb" $total) -}}
{{- if lt $high 1.0 -}}
{{- $sum = printf "%s / %v (settings.memory_high) = %s MB" $sum $high (include "penstock.mb" $least) -}}
{{- end -}}
{{- dict "request" (include "penstock.mi" $total | int64) "limit" (include "penstock.mi" $least | int64) "least" $least "sum" $sum | toJson -}}
{{- end }}

{{- define "penstock.mb" -}}
{{- divf . 1000000 | printf "%.0f" -}}
{{- end }}

{{- define "penstock.mi" -}}
{{- divf . 1048576 | ceil | int64 -}}
{{- end }}

{{/* A quantity as bytes; nothing if it is none of those that one writes for memory. */}}
{{- define "penstock.bytes" -}}
{{- if kindIs "string" . -}}
{{- $number := regexFind `^[0-9]+(\.[0-9]+)?` . -}}
{{- $factors := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- with get $factors (trimPrefix $number .) -}}
{{- mulf (float64 $number) . | int64 -}}
{{- end -}}
{{- else if not (kindIs "invalid" .) -}}
{{- int64 . -}}
{{- end -}}
{{- end }}

{{/* The container's resources, with memory where the values leave it open. */}}
{{- define "penstock.resources" -}}
{{- $resources := deepCopy (.Values.resources | default dict) -}}
{{- if not .Values.memory.trustResources -}}
{{- $memory := include "penstock.memory" . | fromJson -}}
{{- $requests := $resources.requests | default dict -}}
{{- $limits := $resources.limits | default dict -}}
{{- if not $requests.memory -}}
{{- $_ := set $requests "memory" (printf "%dMi" (int64 $memory.request)) -}}
{{- end -}}
{{- if not $limits.memory -}}
{{- $asked := include "penstock.bytes" $requests.memory | default "0" | int64 -}}
{{- $_ := set $limits "memory" (gt $asked (mul (int64 $memory.limit) 1048576) | ternary $requests.memory (printf "%dMi" (int64 $memory.limit))) -}}
{{- end -}}
{{- $_ := set $resources "requests" $requests -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- with $resources }}{{ toYaml . }}{{ end -}}
{{- end }}
