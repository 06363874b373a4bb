#!/usr/bin/env bash
# Makes an OCI image of three layers with tar and gzip alone, for a machine without docker: make-image.sh DIRECTORY [TAG]
# The result is a layout that skopeo names oci:DIRECTORY:TAG. It holds files to encrypt, not a program to run.
set -euo pipefail
layout=${1:?usage: make-image.sh DIRECTORY [TAG]}
tag=${2:-latest}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$layout/blobs/sha256"

# Moves a file into the layout and prints its digest in hexadecimal.
store() {
  local digest
  digest=$(sha256sum < "$1" | cut -d' ' -f1)
  mv "$1" "$layout/blobs/sha256/$digest"
  echo "$digest"
}

# Prints the descriptor of a stored blob: MEDIA-TYPE DIGEST
descriptor() {
  local size
  size=$(wc -c < "$layout/blobs/sha256/$2")
  printf '{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%d}' "$1" "$2" "$size"
}

layers= diff_ids=
# Adds the directory as a layer: its uncompressed digest to the configuration, its compressed blob to the layout.
add_layer() {
  tar -C "$1" --owner=0 --group=0 --mtime='2026-01-01 UTC' --sort=name -cf "$work/layer.tar" .
  diff_ids+=${diff_ids:+,}\"sha256:$(sha256sum < "$work/layer.tar" | cut -d' ' -f1)\"
  gzip -nf "$work/layer.tar"
  layers+=${layers:+,}$(descriptor layer.v1.tar+gzip "$(store "$work/layer.tar.gz")")
}

mkdir -p "$work/base/etc" "$work/data/srv" "$work/app/app"
echo 'ID=example' > "$work/base/etc/os-release"
head -c 1000000 /dev/urandom > "$work/data/srv/model.bin"
echo 'echo hello from the app' > "$work/app/app/main.sh"
for name in base data app; do add_layer "$work/$name"; done

printf '{"os":"linux","architecture":"amd64","config":{"Cmd":["sh","/app/main.sh"]},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
  "$diff_ids" > "$work/config"
config=$(descriptor config.v1+json "$(store "$work/config")")
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
  "$config" "$layers" > "$work/manifest"
manifest=$(descriptor manifest.v1+json "$(store "$work/manifest")")
printf '{"schemaVersion":2,"manifests":[%s,"annotations":{"org.opencontainers.image.ref.name":"%s"}}]}' \
  "${manifest%\}}" "$tag" > "$layout/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' > "$layout/oci-layout"
echo "oci:$layout:$tag"
