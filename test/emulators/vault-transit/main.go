// The transit engine of HashiCorp Vault itself behind loopback HTTP: its ciphers, its versions and its words for what
// is wrong, without Vault's storage, tokens and policies. Prints its address when it listens.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/sdk/logical"
)

const mount = "/v1/transit/"

func main() {
	ctx := context.Background()
	storage := &logical.InmemStorage{}
	engine, err := transit.Factory(ctx, &logical.BackendConfig{
		Logger:      hclog.NewNullLogger(),
		StorageView: storage,
		Config:      map[string]string{},
		System:      &logical.StaticSystemView{DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: time.Hour},
	})
	if err != nil {
		panic(err)
	}
	if err := engine.Initialize(ctx, &logical.InitializationRequest{Storage: storage}); err != nil {
		panic(err)
	}
	http.HandleFunc(mount, func(w http.ResponseWriter, r *http.Request) {
		request := &logical.Request{
			Operation: operationOf(r),
			Path:      strings.TrimPrefix(r.URL.Path, mount),
			Data:      readData(r),
			Storage:   storage,
		}
		// As the core does it: what does not exist is created, where the path has such a thing.
		if request.Operation == logical.UpdateOperation {
			if found, exists, err := engine.HandleExistenceCheck(ctx, request); err == nil && found && !exists {
				request.Operation = logical.CreateOperation
			}
		}
		response, err := engine.HandleRequest(ctx, request)
		answer(w, request, response, err)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("http://%s\n", listener.Addr())
	panic(http.Serve(listener, nil))
}

func operationOf(r *http.Request) logical.Operation {
	if r.Method == http.MethodGet {
		return logical.ReadOperation
	}
	return logical.UpdateOperation
}

func readData(r *http.Request) map[string]interface{} {
	data := map[string]interface{}{}
	decoder := json.NewDecoder(r.Body)
	decoder.UseNumber()
	_ = decoder.Decode(&data)
	return data
}

func answer(w http.ResponseWriter, request *logical.Request, response *logical.Response, err error) {
	w.Header().Set("Content-Type", "application/json")
	status, failure := logical.RespondErrorCommon(request, response, err)
	switch {
	case failure != nil:
		if status == 0 {
			status = http.StatusInternalServerError
		}
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]interface{}{"errors": []string{failure.Error()}})
	case response == nil && request.Operation == logical.ReadOperation:
		w.WriteHeader(http.StatusNotFound)
	case response == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		_ = json.NewEncoder(w).Encode(map[string]interface{}{"data": response.Data})
	}
}
