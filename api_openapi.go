package main

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// openapiDocument is the description of the API, as JSON.
func openapiDocument() ([]byte, error) {
	a := &api{}
	return json.MarshalIndent(a.humaAPI(http.NewServeMux()).OpenAPI(), "", "  ")
}

// operationID names a call for generated clients: post-jobs-id-cancel.
func operationID(method, path string) string {
	words := strings.FieldsFunc(strings.TrimPrefix(path, "/api"), func(r rune) bool { return strings.ContainsRune("/{}", r) })
	return strings.ToLower(method) + "-" + strings.Join(words, "-")
}

// describeReplies adds what huma cannot read off the handlers: a second good status,
// and members that may be null.
func describeReplies(api *huma.OpenAPI) {
	also := func(op *huma.Operation, like, status, doc string) {
		reply := *op.Responses[like]
		reply.Description = doc
		op.Responses[status] = &reply
	}
	also(api.Paths["/api/jobs"].Post, "201", "200", "The existing job: onConflict is keep")
	also(api.Paths["/api/jobs/{id}/cancel"].Post, "200", "202", "Trigger.dev has not confirmed yet")
	schemas := api.Components.Schemas.Map()
	nullable := []*huma.Schema{schemas["NominalView"].Properties["note"]}
	for _, name := range []string{"JobView", "ClaimedJob"} {
		view := schemas[name].Properties
		nullable = append(nullable, view["triggerStatus"], view["misfire"])
		view["retryConfig"] = &huma.Schema{AnyOf: []*huma.Schema{view["retryConfig"], {Type: "null"}}}
	}
	for _, s := range nullable {
		s.Enum = append(s.Enum, nil)
	}
}

// describeProbes adds what is plain net/http.
func describeProbes(h huma.API) {
	answer := func(doc, kind string, schema *huma.Schema) *huma.Response {
		return &huma.Response{Description: doc, Content: map[string]*huma.MediaType{kind: {Schema: schema}}}
	}
	add := func(path, summary string, responses map[string]*huma.Response) {
		h.OpenAPI().AddOperation(&huma.Operation{
			OperationID: operationID("GET", path), Method: "GET", Path: path, Summary: summary, Tags: []string{"Server"}, Responses: responses,
		})
	}
	ready := h.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[readyView](), true, "")
	add("/livez", "Does the process serve requests", map[string]*huma.Response{
		"200": answer("It does", "application/json", &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}),
	})
	add("/readyz", "Can it do its work, and what is amiss", map[string]*huma.Response{
		"200": answer("Ready, or degraded as the notes say", "application/json", ready),
		"503": answer("Not ready", "application/json", ready),
	})
	add("/metrics", "Read the metrics", map[string]*huma.Response{
		"200": answer("Prometheus text", "text/plain", &huma.Schema{Type: huma.TypeString}),
	})
}

// describeWebhook adds the call that huma does not serve: its signature is over the
// very bytes of the body.
func describeWebhook(h huma.API) {
	text := &huma.Schema{Type: huma.TypeString}
	header := func(name, doc string) *huma.Param {
		return &huma.Param{Name: name, In: "header", Description: doc, Schema: text}
	}
	answer := func(doc string) *huma.Response { return &huma.Response{Description: doc} }
	h.OpenAPI().AddOperation(&huma.Operation{
		OperationID: operationID("POST", webhookPath), Method: "POST", Path: webhookPath, Tags: []string{"Trigger.dev"},
		Summary:     "Tell what became of a run",
		Description: "A signed event of a task hook ({\"id\",\"type\",\"run\"}), or an alert of Trigger.dev. It needs no token: its signature is proof.",
		Parameters: []*huma.Param{
			header("webhook-id", "Standard Webhooks: with webhook-timestamp and webhook-signature"),
			header("webhook-timestamp", "Seconds since 1970, at most 5 minutes off"),
			header("webhook-signature", "v1,BASE64 of HMAC-SHA256 over id.timestamp.body"),
			header("x-trigger-signature-hmacsha256", "Hex of HMAC-SHA256 over the body; what alerts carry"),
			header("trigger-signature", "The same, under the name that task hooks use"),
		},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {
			Schema: &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true},
		}}},
		Responses: map[string]*huma.Response{
			"200": answer("In the database: {\"success\":true,\"matched\":bool}"), "400": answer("No such event"),
			"401": answer("The signature is missing or wrong"), "413": answer("Larger than 256 KiB"), "503": answer("No secret is configured"),
		},
	})
}
