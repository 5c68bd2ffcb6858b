package main

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"time"
)

// signStandard signs an event as Standard Webhooks have it, the way verify believes most.
func signStandard(h http.Header, secret, id string, body []byte, at time.Time) {
	stamp := strconv.FormatInt(at.Unix(), 10)
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", stamp)
	h.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(signature(standardKey(secret), []byte(id+"."+stamp+"."), body)))
}
