// Pulls an image as CRI-O 1.37 does: with the call of containers/image that its pullImageImplementation makes
// (internal/storage/image.go), and the keys that its getDecryptionKeys gives where there is no directory of keys
// (server/utils.go). ROOT is for its storage, CERTIFICATES for the registry's.
//
//	program ROOT CERTIFICATES NAME
package main

import (
	"context"
	"fmt"
	"os"

	encconfig "github.com/containers/ocicrypt/config"
	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/signature"
	istorage "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/reexec"
)

func main() {
	if reexec.Init() {
		return
	}
	if err := pull(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func pull(root, certificates, name string) error {
	store, err := storage.GetStore(storage.StoreOptions{
		GraphRoot:       root + "/storage",
		RunRoot:         root + "/run",
		GraphDriverName: "vfs",
	})
	if err != nil {
		return err
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return err
	}
	source, err := docker.NewReference(named)
	if err != nil {
		return err
	}
	destination, err := istorage.Transport.NewStoreReference(store, named, "")
	if err != nil {
		return err
	}
	system := &types.SystemContext{DockerCertPath: certificates}
	policy, err := signature.DefaultPolicy(system)
	if err != nil {
		return err
	}
	allowed, err := signature.NewPolicyContext(policy)
	if err != nil {
		return err
	}
	_, err = copy.Image(context.Background(), allowed, destination, source, &copy.Options{
		SourceCtx:        system,
		DestinationCtx:   system,
		OciDecryptConfig: &encconfig.DecryptConfig{},
	})
	return err
}
