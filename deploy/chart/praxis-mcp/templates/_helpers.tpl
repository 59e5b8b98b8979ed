{{- define "praxis-mcp.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "praxis-mcp.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "praxis-mcp.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "praxis-mcp.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "praxis-mcp.selector" -}}
app.kubernetes.io/name: {{ include "praxis-mcp.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "praxis-mcp.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{ include "praxis-mcp.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "praxis-mcp.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "praxis-mcp.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "praxis-mcp.toolNamespace" -}}
{{- default .Release.Namespace .Values.kubernetes.namespace }}
{{- end }}

{{- define "praxis-mcp.isSeveral" -}}
{{- if or .Values.autoscaling.enabled (gt (int .Values.replicaCount) 1) }}true{{ end }}
{{- end }}

{{- /* The settings file: what the chart knows, and what the user adds. */}}
{{- define "praxis-mcp.settings" -}}
{{- $auth := dict "tokens" .Values.auth.tokens }}
{{- with .Values.auth.oauth }}{{ $_ := set $auth "oauth" . }}{{ end }}
{{- $http := dict "host" "0.0.0.0" "port" 8000 "auth" $auth "drain_delay" .Values.drainDelay "drain" .Values.drain }}
{{- if .Values.auth.proxyAuthenticates }}{{ $_ := set $http "proxy_authenticates" true }}{{ end }}
{{- $local := dict "sandbox" "require" }}
{{- $engines := dict "local" $local }}
{{- if .Values.kubernetes.enabled }}
{{- $kubernetes := merge (dict "namespace" (include "praxis-mcp.toolNamespace" .) "owner" (include "praxis-mcp.owner" .)) .Values.kubernetes.settings }}
{{- $engines = dict "local" $local "order" (list "kubernetes") "kubernetes" $kubernetes }}
{{- end }}
{{- $records := dict "directory" "/var/lib/praxis-mcp/records" }}
{{- with .Values.records.url }}{{ $_ := set $records "url" . }}{{ end }}
{{- if .Values.records.passwordSecret }}{{ $_ := set $records "password" (dict "env" "PRAXIS_DATABASE_PASSWORD") }}{{ end }}
{{- $own := dict "root" "/srv/praxis" "tools" (list "/srv/praxis/tools") "log_format" "json" "http" $http "engines" $engines "records" $records }}
{{- toYaml (mergeOverwrite $own (deepCopy .Values.settings)) }}
{{- end }}

{{- define "praxis-mcp.check" -}}
{{- $all := include "praxis-mcp.settings" . | fromYaml }}
{{- $http := $all.http | default dict }}
{{- $auth := $http.auth | default dict }}
{{- if not (or $auth.tokens $auth.oauth $http.proxy_authenticates) }}
{{- fail "Everyone who reaches the port could call every tool: give auth.tokens (praxis-mcp token new prints one), auth.oauth, or say auth.proxyAuthenticates: true." }}
{{- end }}
{{- if and $http.proxy_authenticates (not (and .Values.networkPolicy.enabled .Values.networkPolicy.from)) }}
{{- fail "With auth.proxyAuthenticates every Pod of the cluster could call every tool, past the proxy: keep networkPolicy.enabled, and name the proxy's Pods in networkPolicy.from." }}
{{- end }}
{{- $url := ($all.records | default dict).url | default "" }}
{{- if or (regexMatch "^[a-z]+://[^/?#]*:[^/?#]*@" $url) (regexMatch "[?&](ssl)?password=" $url) }}
{{- fail "records.url has a password, and would lie in a ConfigMap, which more may read than a Secret: name that Secret in records.passwordSecret." }}
{{- end }}
{{- if and (include "praxis-mcp.isSeveral" .) (not $url) }}
{{- fail "Several servers need one database: set records.url (postgresql://USER@HOST/NAME), or replicaCount: 1." }}
{{- end }}
{{- end }}

{{- /* JSON, in which the kubelet puts the address of the Pod. */}}
{{- define "praxis-mcp.hosts" -}}
{{- $name := include "praxis-mcp.fullname" . }}
{{- $service := printf "%s.%s" $name .Release.Namespace }}
{{- $hosts := list "$(POD_IP)" $name $service (printf "%s.svc" $service) (printf "%s.svc.cluster.local" $service) }}
{{- toJson (concat $hosts .Values.allowedHosts) }}
{{- end }}

{{/* Owns, by the servers' Leases, all that they make where tools run: a release that is uninstalled takes it along. */}}
{{- define "praxis-mcp.owner" -}}
{{- printf "%s-owner" (include "praxis-mcp.fullname" .) -}}
{{- end -}}

{{/* How the server reaches the Pods of tools. */}}
{{- define "praxis-mcp.channel" -}}
{{- $there := default dict (dig "engines" "kubernetes" dict .Values.settings) -}}
{{- default (default "forward" .Values.kubernetes.settings.channel) $there.channel -}}
{{- end -}}

{{/* Who makes the Pods of tools, as far as the values say it. */}}
{{- define "praxis-mcp.agentSandbox" -}}
{{- $there := default dict (dig "engines" "kubernetes" dict .Values.settings) -}}
{{- default (default "" .Values.kubernetes.settings.agent_sandbox) $there.agent_sandbox -}}
{{- end -}}
