// grpc-go as a client and as a server of ocicrypt's key-provider service.
//
//	grpc-go call TARGET METHOD [CA CERTIFICATE KEY]    sends standard input, prints the reply; a status is printed as its number, exit 1
//	grpc-go time TARGET METHOD RUNS                    sends standard input as often, each time dialling and closing; prints the microseconds of each, a line each
//	grpc-go serve SOCKET                               answers every call with nothing, for comparisons of speed
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const service = "keyprovider.KeyProviderService"

func main() {
	switch arguments := os.Args[1:]; {
	case len(arguments) == 3 && arguments[0] == "call":
		call(arguments[1], arguments[2], insecure.NewCredentials())
	case len(arguments) == 6 && arguments[0] == "call":
		call(arguments[1], arguments[2], clientCredentials(arguments[3], arguments[4], arguments[5]))
	case len(arguments) == 4 && arguments[0] == "time":
		measure(arguments[1], arguments[2], arguments[3])
	case len(arguments) == 2 && arguments[0] == "serve":
		serve(arguments[1])
	default:
		fmt.Fprintln(os.Stderr, "usage: grpc-go call TARGET METHOD [CA CERTIFICATE KEY] | grpc-go time TARGET METHOD RUNS | grpc-go serve SOCKET")
		os.Exit(64)
	}
}

// A BytesValue is on the wire what ocicrypt's messages are: bytes in field 1.
func call(target, method string, transport credentials.TransportCredentials) {
	request, err := io.ReadAll(os.Stdin)
	check(err)
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(transport))
	check(err)
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	reply := &wrapperspb.BytesValue{}
	if err := connection.Invoke(ctx, "/"+service+"/"+method, wrapperspb.Bytes(request), reply); err != nil {
		fmt.Println(uint32(status.Code(err)))
		os.Exit(1)
	}
	_, err = os.Stdout.Write(reply.Value)
	check(err)
}

// As ocicrypt does it for each layer: dial, call, close.
func measure(target, method, runs string) {
	request, err := io.ReadAll(os.Stdin)
	check(err)
	count, err := strconv.Atoi(runs)
	check(err)
	for ; count > 0; count-- {
		started := time.Now()
		connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
		check(err)
		check(connection.Invoke(context.Background(), "/"+service+"/"+method, wrapperspb.Bytes(request), &wrapperspb.BytesValue{}))
		check(connection.Close())
		fmt.Println(time.Since(started).Microseconds())
	}
}

func clientCredentials(authority, certificate, key string) credentials.TransportCredentials {
	pem, err := os.ReadFile(authority)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	own, err := tls.LoadX509KeyPair(certificate, key)
	check(err)
	return credentials.NewTLS(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS13})
}

func serve(path string) {
	listener, err := net.Listen("unix", path)
	check(err)
	answer := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		return &wrapperspb.BytesValue{}, decode(&wrapperspb.BytesValue{})
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "WrapKey", Handler: answer},
			{MethodName: "UnWrapKey", Handler: answer},
		},
	}, nil)
	check(server.Serve(listener))
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
