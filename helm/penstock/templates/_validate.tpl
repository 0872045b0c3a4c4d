{{/*
What the schema cannot say: combinations that cannot work. Each problem is a sentence that names
the value and the remedy; all are told at once. templates/validation.yaml asks for them.
*/}}
{{- define "penstock.validate" -}}
{{- $problems := list -}}
{{- range list "kafka" "security" "app" "settings" "env" "workload" "restarts" "memory" "timing" "sidecars" "keda" "monitoring" -}}
{{- range include (printf "penstock.problems.%s" .) $ | splitList "\n" -}}
{{- with trim . }}{{ $problems = append $problems . }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if $problems -}}
{{- printf "these values cannot work:\n- %s" (join "\n- " $problems) | fail -}}
{{- end -}}
{{- end }}

{{- define "penstock.problems.kafka" -}}
{{- with .Values.kafka.bootstrapServers }}
{{- range include "penstock.commas" . | splitList "," }}
{{- if not (regexMatch `^\S+:\d+$` (trim .)) }}
kafka.bootstrapServers: {{ . | quote }} is not host:port
{{- end }}
{{- end }}
{{- else }}
kafka.bootstrapServers is not set: name the brokers to start from, for example --set kafka.bootstrapServers=kafka:9092
{{- end }}
{{- end }}

{{- define "penstock.problems.security" -}}
{{- with .Values.kafka }}
{{- $isSasl := hasPrefix "SASL_" .securityProtocol }}
{{- $isTls := hasSuffix "SSL" .securityProtocol }}
{{- $hasPassword := or .sasl.password .sasl.existingSecret }}
{{- if and $isSasl (not .sasl.mechanism) }}
kafka.securityProtocol is {{ .securityProtocol }} without kafka.sasl.mechanism: set it, for example to SCRAM-SHA-512
{{- end }}
{{- if and (not $isSasl) (or .sasl.mechanism .sasl.username .sasl.usernameKey $hasPassword) }}
kafka.sasl is set but kafka.securityProtocol is {{ .securityProtocol }}: set it to SASL_SSL or SASL_PLAINTEXT
{{- end }}
{{- if and $isSasl (has .sasl.mechanism (list "PLAIN" "SCRAM-SHA-256" "SCRAM-SHA-512")) }}
{{- if not (or .sasl.username .sasl.usernameKey) }}
kafka.sasl.mechanism {{ .sasl.mechanism }} needs a user: set kafka.sasl.username, or kafka.sasl.usernameKey if the Secret holds it
{{- end }}
{{- if not $hasPassword }}
kafka.sasl.mechanism {{ .sasl.mechanism }} needs a password: set kafka.sasl.existingSecret
{{- end }}
{{- end }}
{{- if and .sasl.password .sasl.existingSecret }}
kafka.sasl.password and kafka.sasl.existingSecret are both set: keep one
{{- end }}
{{- if and .sasl.username .sasl.usernameKey }}
kafka.sasl.username and kafka.sasl.usernameKey are both set: keep one
{{- end }}
{{- if and .sasl.usernameKey (not .sasl.existingSecret) }}
kafka.sasl.usernameKey is a key of kafka.sasl.existingSecret, which is not set
{{- end }}
{{- if and (not $isTls) (or .tls.caSecret .tls.clientSecret) }}
kafka.tls is set but kafka.securityProtocol is {{ .securityProtocol }}: set it to SSL or SASL_SSL
{{- end }}
{{- if and .tls.keyPasswordKey (not .tls.clientSecret) }}
kafka.tls.keyPasswordKey is a key of kafka.tls.clientSecret, which is not set
{{- end }}
{{- end }}
{{- end }}

{{- define "penstock.problems.app" -}}
{{- if include "penstock.isDefaultApp" . }}
{{- if not .Values.topics }}
topics is empty: name what {{ .Values.app }} is to read, for example --set 'topics={orders}'
{{- end }}
{{- with .Values.handlers.files }}
handlers.files is given but app is still {{ $.Values.app }}: set app to MODULE:APP of one of the files, for example {{ keys . | sortAlpha | first | trimSuffix ".py" }}:app
{{- end }}
{{- end }}
{{- end }}

{{/* Settings that have a value of the chart, or that the chart itself has to know. */}}
{{- define "penstock.ownedSettings" -}}
bootstrap_servers: kafka.bootstrapServers
group_id: group
topics: topics
instance_id: staticMembership.enabled
stable_identity: staticMembership.enabled
session_timeout: kafka.sessionTimeout
security_protocol: kafka.securityProtocol
sasl_mechanism: kafka.sasl.mechanism
sasl_username: kafka.sasl.username
sasl_password: kafka.sasl.existingSecret
sasl_password_file: kafka.sasl.existingSecret
ssl_cafile: kafka.tls.caSecret
ssl_certfile: kafka.tls.clientSecret
ssl_keyfile: kafka.tls.clientSecret
ssl_password: kafka.tls.keyPasswordKey
ssl_check_hostname: kafka.tls.checkHostname
wait_urls: sidecars.waitUrls
wait_timeout: sidecars.waitTimeout
drain_timeout: drainTimeout
quit_urls: sidecars.quitUrls
stop_when_caught_up: workload.kind
http_port: http.port
control_token: control.existingSecret
control_token_file: control.existingSecret
runtime_dir: ""
state_dir: ""
termination_log: ""
{{- end }}

{{- define "penstock.problems.settings" -}}
{{- $owned := include "penstock.ownedSettings" . | fromYaml }}
{{- range $name := keys .Values.settings | sortAlpha }}
{{- if hasKey $owned $name }}
{{- with get $owned $name }}
settings.{{ $name }} is decided by a value of the chart: set {{ . }} instead
{{- else }}
settings.{{ $name }} is where the chart mounts it: leave it out
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.settings.http_host }}
{{- if regexMatch `^(127\.|localhost$|\[?::1\]?$)` . }}
settings.http_host is {{ . }}: the kubelet's probes come from outside the pod; leave it out
{{- end }}
{{- end }}
{{- end }}

{{/* The last of two variables of one name would win, silently. */}}
{{- define "penstock.problems.env" -}}
{{- $ours := list }}
{{- range include "penstock.env" . | fromYamlArray }}{{ $ours = append $ours .name }}{{ end }}
{{- range .Values.extraEnv }}
{{- if has .name $ours }}
extraEnv: {{ .name }} is set by the chart as well: use the value for it, or settings
{{- end }}
{{- end }}
{{- end }}

{{- define "penstock.problems.workload" -}}
{{- $kind := .Values.workload.kind }}
{{- if and (eq $kind "StatefulSet") (not .Values.staticMembership.enabled) }}
workload.kind is StatefulSet without static membership, which is all that its stable names are good for here: set staticMembership.enabled=true, or workload.kind=Deployment
{{- end }}
{{- if and .Values.staticMembership.enabled (ne $kind "StatefulSet") }}
staticMembership.enabled needs workload.kind=StatefulSet: the pod names of a {{ $kind }} do not come back, and each would leave an empty seat behind for kafka.sessionTimeout
{{- end }}
{{- if and (include "penstock.isBatch" .) (not (kindIs "invalid" .Values.replicas)) }}
replicas is for a Deployment or StatefulSet: set job.parallelism for a {{ $kind }}
{{- end }}
{{- if and (eq $kind "CronJob") (not .Values.cronJob.schedule) }}
cronJob.schedule is not set: say when to run, for example --set cronJob.schedule='15 * * * *'
{{- end }}
{{- end }}

{{- define "penstock.problems.restarts" -}}
{{- $kind := .Values.workload.kind }}
{{- $version := .Capabilities.KubeVersion.Version }}
{{- $isBatch := include "penstock.isBatch" . }}
{{- if eq .Values.restartPolicy "rules" }}
{{- if $isBatch }}
restartPolicy=rules is not for a {{ $kind }}: its podFailurePolicy ignores exit {{ include "penstock.restartCode" . }} already; set restartPolicy=always
{{- else if .Values.asSidecar.enabled }}
restartPolicy=rules does nothing for a native sidecar, which is always started again: set restartPolicy=always
{{- else if semverCompare "<1.34-0" $version }}
restartPolicy=rules needs Kubernetes 1.35 (KEP-5307, container restart rules), and this is {{ $version }}: set restartPolicy=always
{{- else if and (semverCompare "<1.35-0" $version) (not .Values.featureGates.ContainerRestartRules) }}
restartPolicy=rules needs Kubernetes 1.35 (KEP-5307, container restart rules), and this is {{ $version }}, which drops the rules unless its gate is on: set restartPolicy=always, or switch the gate on in the cluster and set featureGates.ContainerRestartRules=true
{{- end }}
{{- if or .Values.extraContainers .Values.mesh.istio.classic .Values.mesh.linkerd.classic }}
restartPolicy=rules does not go with classic sidecars (extraContainers, mesh.istio.classic, mesh.linkerd.classic): one that still runs keeps the pod Running after the service crashed, and nobody starts it again; use nativeSidecars, or restartPolicy=always
{{- end }}
{{- end }}
{{- if .Values.stopSignal }}
{{- if semverCompare "<1.34-0" $version }}
stopSignal needs Kubernetes 1.34 with the gate ContainerStopSignals (KEP-4960), and this is {{ $version }}: leave it empty, the preStop hook makes a restart of a rollout as well
{{- end }}
{{- if $isBatch }}
stopSignal is not for a {{ $kind }}: where the cluster's gate is off it is dropped, and an evicted pod would exit 0 as if its work were done; leave it empty
{{- end }}
{{- else if and $isBatch (not .Values.preStop.enabled) (not .Values.lifecycle.preStop) }}
preStop.enabled=false is not for a {{ $kind }}: an evicted pod would get a plain TERM and exit 0 as if its work were done; set preStop.enabled=true
{{- end }}
{{- end }}

{{- define "penstock.problems.memory" -}}
{{- if not .Values.memory.trustResources }}
{{- with (.Values.resources.limits | default dict).memory }}
{{- $memory := include "penstock.memory" $ | fromJson }}
{{- $given := include "penstock.bytes" . }}
{{- if not $given }}
resources.limits.memory: {{ . }} is not a number of bytes such as 512Mi, or set memory.trustResources=true
{{- else if lt (int64 $given) (int64 $memory.least) }}
resources.limits.memory is {{ . }} = {{ include "penstock.mb" (int64 $given) }} MB, and the service may take {{ $memory.sum }}: leave it out or set {{ int64 $memory.limit }}Mi, lower settings.workers, settings.buffer_bytes or settings.fetch_bytes, say in memory.handlers what handlers hold, or set memory.trustResources=true
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "penstock.problems.timing" -}}
{{- $drain := int .Values.drainTimeout }}
{{- $needed := int (include "penstock.graceNeeded" .) }}
{{- $grace := int (include "penstock.grace" .) }}
{{- if lt $grace $needed }}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds }}
drainTimeout {{ $drain }} s + at least 5 s for hook and exit = {{ $needed }} s, and terminationGraceMargin allows {{ .Values.terminationGraceMargin }} s: raise it to 5 or more
{{- else }}
drainTimeout {{ $drain }} s + at least 5 s for hook and exit = {{ $needed }} s, terminationGracePeriodSeconds is {{ $grace }}: raise it or lower drainTimeout
{{- end }}
{{- end }}
{{- with .Values.probes.startup }}
{{- $budget := mul .periodSeconds .failureThreshold }}
{{- $wait := include "penstock.waitUrls" $ | empty | ternary 0 $.Values.sidecars.waitTimeout }}
{{- $join := addf $.Values.kafka.sessionTimeout $wait 15 | ceil | int }}
{{- if lt (int $budget) $join }}
kafka.sessionTimeout {{ $.Values.kafka.sessionTimeout }} s (a killed predecessor keeps its seat so long) + {{ $wait }} s for sidecars + 15 s to join = {{ $join }} s, probes.startup gives up after {{ .periodSeconds }} s x {{ .failureThreshold }} = {{ $budget }} s: raise its failureThreshold
{{- end }}
{{- end }}
{{- with .Values.probes.liveness }}
{{- $budget := mul .periodSeconds .failureThreshold }}
{{- if lt (int $budget) 15 }}
probes.liveness kills after {{ .periodSeconds }} s x {{ .failureThreshold }} = {{ $budget }} s, which a busy node takes to answer now and then: allow 15 s or more, raise its failureThreshold
{{- end }}
{{- end }}
{{- end }}

{{- define "penstock.problems.sidecars" -}}
{{- $isBatch := include "penstock.isBatch" . }}
{{- if and .Values.sidecars.quitUrls (not $isBatch) }}
sidecars.quitUrls is for Job and CronJob: in a {{ .Values.workload.kind }} the pod lives on and the sidecar would only be started again; leave it out
{{- end }}
{{- if and .Values.sidecars.quitUrls .Values.asSidecar.enabled }}
sidecars.quitUrls does not go with asSidecar.enabled: the main containers decide when the pod ends
{{- end }}
{{- range concat .Values.sidecars.waitUrls .Values.sidecars.quitUrls }}
{{- if not (regexMatch `^https?://(localhost|127\.0\.0\.1|\[::1\])[:/]` .) }}
sidecars: {{ . }} is not on loopback, where a sidecar is; write it as http://localhost:PORT/…
{{- end }}
{{- end }}
{{- range .Values.nativeSidecars }}
{{- if ne (.restartPolicy | default "Always") "Always" }}
nativeSidecars: {{ .name }} has restartPolicy {{ .restartPolicy }}: a native sidecar has Always; list what ends by itself in initContainers
{{- end }}
{{- end }}
{{- with .Values.asSidecar }}
{{- if and .enabled (not .mainContainers) }}
asSidecar.enabled without asSidecar.mainContainers: name the containers that the service is a sidecar of
{{- end }}
{{- if and .mainContainers (not .enabled) }}
asSidecar.mainContainers is set but asSidecar.enabled is false: set it to true, or list plain sidecars in extraContainers
{{- end }}
{{- end }}
{{- end }}

{{- define "penstock.problems.keda" -}}
{{- with .Values.keda }}
{{- if .enabled }}
{{- if include "penstock.isBatch" $ }}
keda.enabled is for a Deployment or StatefulSet, not for a {{ $.Values.workload.kind }}: set keda.enabled=false
{{- else if not (kindIs "invalid" $.Values.replicas) }}
replicas={{ $.Values.replicas }} is set and keda.enabled as well, which owns the replicas: leave replicas out and set keda.minReplicas and keda.maxReplicas
{{- end }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
keda.minReplicas {{ .minReplicas }} is above keda.maxReplicas {{ .maxReplicas }}: lower it
{{- end }}
{{- if not (or .topics $.Values.topics) }}
keda.enabled needs to know what to watch: set keda.topics to the topics that the app's code reads
{{- end }}
{{- if not (or .consumerGroup (include "penstock.group" $)) }}
keda.enabled needs to know the group: set keda.consumerGroup to the one in the app's code, or group
{{- end }}
{{- if and (ne $.Values.kafka.securityProtocol "PLAINTEXT") (not .authenticationRef.name) }}
keda.enabled with kafka.securityProtocol {{ $.Values.kafka.securityProtocol }}: KEDA asks the brokers itself, set keda.authenticationRef.name to a TriggerAuthentication
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "penstock.problems.monitoring" -}}
{{- with .Values.prometheusRule.disabled }}
{{- $alerts := include "penstock.alertNames" $ | fromJsonArray }}
{{- range . }}
{{- if not (has . $alerts) }}
prometheusRule.disabled: there is no alert {{ . }}; there are {{ join ", " $alerts }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
