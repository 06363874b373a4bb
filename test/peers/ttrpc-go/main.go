// containerd's ttrpc as a client of ocicrypt's key-provider service.
//
//	ttrpc-go SOCKET METHOD    sends standard input, prints the reply; a status is printed as its number, exit 1
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const service = "keyprovider.KeyProviderService"

// A BytesValue is on the wire what ocicrypt's messages are: bytes in field 1.
func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: ttrpc-go SOCKET METHOD")
		os.Exit(64)
	}
	request, err := io.ReadAll(os.Stdin)
	check(err)
	connection, err := net.Dial("unix", os.Args[1])
	check(err)
	client := ttrpc.NewClient(connection)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	reply := &wrapperspb.BytesValue{}
	if err := client.Call(ctx, service, os.Args[2], wrapperspb.Bytes(request), reply); err != nil {
		fmt.Println(uint32(status.Code(err)))
		os.Exit(1)
	}
	_, err = os.Stdout.Write(reply.Value)
	check(err)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
