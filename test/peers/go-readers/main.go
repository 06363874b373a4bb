// Images as others read them: by encoding/json into the structs of image-spec, as containerd does, and by containers/image.
//
//	go-readers    a request on each line of standard input, its answer on a line of standard output, both JSON
//
// A request is a document with its media type, or the name of a layout or an archive as skopeo has it. An answer has what
// each reader reads, or that it refuses.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	importer "github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/oci/archive"
	"github.com/containers/image/v5/oci/layout"
	"github.com/containers/image/v5/types"
	digest "github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

type request struct {
	MediaType string `json:"mediaType"`
	Bytes     []byte `json:"bytes"`
	Image     string `json:"image"`
}

type reading struct {
	Reader    string          `json:"reader"`
	Refusal   string          `json:"refusal,omitempty"`
	MediaType string          `json:"mediaType,omitempty"`
	Digest    digest.Digest   `json:"digest,omitempty"`
	Config    *v1.Descriptor  `json:"config,omitempty"`
	Layers    []v1.Descriptor `json:"layers,omitempty"`
	Manifests []v1.Descriptor `json:"manifests,omitempty"`
	Chosen    []digest.Digest `json:"chosen,omitempty"`
	Children  []reading       `json:"children,omitempty"`
}

func main() {
	input := bufio.NewReaderSize(os.Stdin, 1<<20)
	output := bufio.NewWriterSize(os.Stdout, 1<<20)
	encoder := json.NewEncoder(output)
	encoder.SetEscapeHTML(false)
	for {
		line, err := input.ReadBytes('\n')
		if len(line) > 0 {
			var asked request
			check(json.Unmarshal(line, &asked))
			check(encoder.Encode(answer(asked)))
			if input.Buffered() == 0 {
				check(output.Flush())
			}
		}
		if err != nil {
			check(output.Flush())
			return
		}
	}
}

func answer(asked request) []reading {
	if path, ok := strings.CutPrefix(asked.Image, "oci-archive:"); ok {
		return []reading{readImage(asked.Image), importArchive(path[:strings.LastIndex(path, ":")])}
	}
	if asked.Image != "" {
		return []reading{readImage(asked.Image)}
	}
	return []reading{readAsContainerd(asked.Bytes, asked.MediaType), readAsContainersImage(asked.Bytes, asked.MediaType), guess(asked.Bytes)}
}

func isIndex(mediaType string) bool {
	return mediaType == v1.MediaTypeImageIndex || mediaType == manifest.DockerV2ListMediaType
}

func isManifest(mediaType string) bool {
	return mediaType == v1.MediaTypeImageManifest || mediaType == manifest.DockerV2Schema2MediaType
}

// containerd core/images/image.go: what is of two kinds is refused, then it is read as what its descriptor says.
func readAsContainerd(document []byte, mediaType string) reading {
	answer := reading{Reader: "containerd", MediaType: mediaType}
	var kinds struct {
		MediaType string          `json:"mediaType,omitempty"`
		Config    json.RawMessage `json:"config,omitempty"`
		Layers    json.RawMessage `json:"layers,omitempty"`
		Manifests json.RawMessage `json:"manifests,omitempty"`
		FSLayers  json.RawMessage `json:"fsLayers,omitempty"`
	}
	err := json.Unmarshal(document, &kinds)
	switch {
	case err != nil:
	case len(kinds.FSLayers) != 0:
		err = errors.New("schema 1")
	case isManifest(mediaType) && (len(kinds.Manifests) != 0 || isIndex(kinds.MediaType)):
		err = errors.New("expected manifest but found index")
	case isIndex(mediaType) && (len(kinds.Config) != 0 || len(kinds.Layers) != 0 || isManifest(kinds.MediaType)):
		err = errors.New("expected index but found manifest")
	case isIndex(mediaType):
		var index v1.Index
		err = json.Unmarshal(document, &index)
		answer.Manifests = index.Manifests
	case isManifest(mediaType):
		var image v1.Manifest
		err = json.Unmarshal(document, &image)
		answer.Config, answer.Layers = &image.Config, image.Layers
	default:
		err = fmt.Errorf("media type %s", mediaType)
	}
	return orRefusal(answer, err)
}

func readAsContainersImage(document []byte, mediaType string) reading {
	answer := reading{Reader: "containers/image", MediaType: mediaType}
	if manifest.MIMETypeIsMultiImage(mediaType) {
		list, err := manifest.ListFromBlob(document, mediaType)
		if err != nil {
			return orRefusal(answer, err)
		}
		for _, platform := range [][2]string{{"linux", "amd64"}, {"linux", "arm64"}, {"windows", "amd64"}} {
			chosen, err := list.ChooseInstance(&types.SystemContext{OSChoice: platform[0], ArchitectureChoice: platform[1]})
			if err == nil {
				answer.Chosen = append(answer.Chosen, chosen)
			}
		}
		if mediaType == v1.MediaTypeImageIndex {
			index, err := manifest.OCI1IndexFromManifest(document)
			if err != nil {
				return orRefusal(answer, err)
			}
			answer.Manifests = index.Manifests
			return answer
		}
		index, err := manifest.Schema2ListFromManifest(document)
		if err != nil {
			return orRefusal(answer, err)
		}
		for _, entry := range index.Manifests {
			answer.Manifests = append(answer.Manifests, fromDocker(entry.Schema2Descriptor, &entry.Platform))
		}
		return answer
	}
	image, err := manifest.FromBlob(document, mediaType)
	if err != nil {
		return orRefusal(answer, err)
	}
	switch image := image.(type) {
	case *manifest.OCI1:
		answer.Config, answer.Layers = &image.Config, image.Layers
	case *manifest.Schema2:
		config := fromDocker(image.ConfigDescriptor, nil)
		answer.Config = &config
		for _, layer := range image.LayersDescriptors {
			answer.Layers = append(answer.Layers, fromDocker(layer, nil))
		}
	default:
		return orRefusal(answer, fmt.Errorf("manifest of type %T", image))
	}
	return answer
}

func fromDocker(descriptor manifest.Schema2Descriptor, platform *manifest.Schema2PlatformSpec) v1.Descriptor {
	result := v1.Descriptor{MediaType: descriptor.MediaType, Digest: descriptor.Digest, Size: descriptor.Size, URLs: descriptor.URLs}
	if platform != nil {
		result.Platform = &v1.Platform{OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant}
	}
	return result
}

func guess(document []byte) reading {
	return reading{Reader: "guess", MediaType: manifest.GuessMIMEType(document)}
}

func readImage(name string) reading {
	answer := reading{Reader: "containers/image"}
	source, err := open(name)
	if err != nil {
		return orRefusal(answer, err)
	}
	defer source.Close()
	return readFrom(source, nil, 0)
}

// importArchive reads the index that containerd makes of an archive.
func importArchive(path string) reading {
	answer := reading{Reader: "containerd's importer", MediaType: v1.MediaTypeImageIndex}
	directory, err := os.MkdirTemp("", "import-")
	check(err)
	defer os.RemoveAll(directory)
	store, err := local.NewStore(directory)
	check(err)
	file, err := os.Open(path)
	check(err)
	defer file.Close()
	stream, err := compression.DecompressStream(file)
	if err != nil {
		return orRefusal(answer, err)
	}
	defer stream.Close()
	ctx := context.Background()
	descriptor, err := importer.ImportIndex(ctx, store, stream)
	if err != nil {
		return orRefusal(answer, err)
	}
	document, err := content.ReadBlob(ctx, store, descriptor)
	if err != nil {
		return orRefusal(answer, err)
	}
	var index v1.Index
	err = json.Unmarshal(document, &index)
	answer.Manifests = index.Manifests
	return orRefusal(answer, err)
}

func open(name string) (types.ImageSource, error) {
	var reference types.ImageReference
	var err error
	if rest, ok := strings.CutPrefix(name, "oci-archive:"); ok {
		reference, err = archive.ParseReference(rest)
	} else {
		reference, err = layout.ParseReference(strings.TrimPrefix(name, "oci:"))
	}
	if err != nil {
		return nil, err
	}
	return reference.NewImageSource(context.Background(), nil)
}

// readFrom reads an image as copies of it are made: what it is, the source says, or else the document itself.
func readFrom(source types.ImageSource, instance *digest.Digest, depth int) reading {
	document, mediaType, err := source.GetManifest(context.Background(), instance)
	if err != nil {
		return orRefusal(reading{Reader: "containers/image"}, err)
	}
	answer := readAsContainersImage(document, mediaType)
	answer.Digest = digest.FromBytes(document)
	if instance != nil && *instance != answer.Digest {
		return orRefusal(answer, errors.New("another digest"))
	}
	if depth < 4 {
		for _, entry := range answer.Manifests {
			answer.Children = append(answer.Children, readFrom(source, &entry.Digest, depth+1))
		}
	}
	return answer
}

func orRefusal(answer reading, err error) reading {
	if err == nil {
		return answer
	}
	return reading{Reader: answer.Reader, Refusal: err.Error(), MediaType: answer.MediaType}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
