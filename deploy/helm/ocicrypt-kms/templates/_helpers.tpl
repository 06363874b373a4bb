{{/* Names, labels, image and what every container of the chart has in common. */}}

{{- define "ocicrypt-kms.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* (dict "top" $ "component" "node") */}}
{{- define "ocicrypt-kms.selector" -}}
app.kubernetes.io/name: {{ .top.Chart.Name }}
app.kubernetes.io/instance: {{ .top.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "ocicrypt-kms.labels" -}}
{{ include "ocicrypt-kms.selector" . }}
app.kubernetes.io/version: {{ .top.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .top.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .top.Chart.Name .top.Chart.Version }}
{{- end -}}

{{- define "ocicrypt-kms.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "ocicrypt-kms.policyName" -}}
{{- .Values.existingPolicy | default (printf "%s-policy" (include "ocicrypt-kms.name" .)) -}}
{{- end -}}

{{/* What a node is told: with servers in pods, their socket alone. */}}
{{- define "ocicrypt-kms.nodePolicyName" -}}
{{- if .Values.server.enabled }}{{ include "ocicrypt-kms.name" . }}-remote{{ else }}{{ include "ocicrypt-kms.policyName" . }}{{ end -}}
{{- end -}}

{{- define "ocicrypt-kms.priorityClassName" -}}
{{- .Values.priorityClassName | default (include "ocicrypt-kms.name" .) -}}
{{- end -}}

{{/* As little as a container needs that only listens and calls. */}}
{{- define "ocicrypt-kms.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Policy, Secrets and further files: a volume each, all mounted below one directory. */}}
{{- define "ocicrypt-kms.sourceMounts" -}}
- {name: policy, mountPath: {{ .directory }}/policy, readOnly: true}
{{- range $index, $secret := .top.Values.secrets }}
- {name: secret-{{ $index }}, mountPath: {{ $.directory }}/secrets/{{ $secret }}, readOnly: true}
{{- end }}
{{- range .top.Values.volumes }}
- {name: {{ .name }}, mountPath: {{ $.directory }}/{{ .name }}, readOnly: true}
{{- end }}
{{- end -}}

{{/* Files of Secrets are for their owner, root; and for the group of a pod that has an fsGroup. */}}
{{- define "ocicrypt-kms.sourceVolumes" -}}
- name: policy
  configMap:
    name: {{ .policy }}
    items: [{key: config.yaml, path: config.yaml}]
{{- range $index, $secret := .top.Values.secrets }}
- name: secret-{{ $index }}
  secret: {secretName: {{ $secret | quote }}, defaultMode: 0400}
{{- end }}
{{- with .top.Values.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
