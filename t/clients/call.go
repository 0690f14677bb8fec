// One call of the commercial API's own client library, for t/client_go.t:
//
//	call ENDPOINT VERSION METHOD [ARGUMENT...]
//
// runs the method of that name of the library's client, and prints what it gave as JSON: [result, error text].
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"strconv"

	"github.com/nginxinc/nginx-plus-go-client/client"
)

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "call ENDPOINT VERSION METHOD [ARGUMENT...]")
		os.Exit(2)
	}
	result, err := call(os.Args[1], os.Args[2], os.Args[3], os.Args[4:])
	said := ""
	if err != nil {
		said = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode([]interface{}{result, said}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func call(endpoint, version, name string, arguments []string) (interface{}, error) {
	number, err := strconv.Atoi(version)
	if err != nil {
		return nil, err
	}
	api, err := client.NewNginxClientWithVersion(http.DefaultClient, endpoint, number)
	if err != nil {
		return nil, err
	}
	method := reflect.ValueOf(api).MethodByName(name)
	if !method.IsValid() || method.Type().NumIn() != len(arguments) {
		return nil, fmt.Errorf("the library has no %s of %d arguments", name, len(arguments))
	}
	var values []reflect.Value
	for _, argument := range arguments {
		values = append(values, reflect.ValueOf(argument))
	}
	// The last of what a method gives is an error, before which there may be a result.
	given := method.Call(values)
	last, _ := given[len(given)-1].Interface().(error)
	if len(given) > 1 {
		return given[0].Interface(), last
	}
	return nil, last
}
