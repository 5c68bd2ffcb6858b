package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"

	"sidejob/internal/triggerdev"
)

// doctorPatience bounds each call of the doctor's.
const doctorPatience = 10 * time.Second

// lookAtTrigger sees whether Trigger.dev answers, takes the key, has our time, and whether
// the key is of the environment in which the open runs are.
func (d *doctor) lookAtTrigger(ctx context.Context) {
	key, given, err := environment(d.std.env).key()
	switch {
	case d.Trigger != nil && !*d.Trigger:
		d.skip("key", "Trigger.dev is switched off")
		return
	case err != nil || !given:
		d.skip("key", "there is no key to try")
		return
	}
	clock := &clockReader{}
	client, err := triggerdev.New(triggerdev.Config{
		BaseURL: d.TriggerAPIURL, Key: key, UserAgent: "sidejob/" + version(), HTTP: &http.Client{Transport: clock}, Timeout: doctorPatience,
	})
	if err != nil {
		d.find("key", err.Error(), "set TRIGGER_API_URL and TRIGGER_SECRET_KEY right")
		return
	}
	begun := time.Now()
	page, err := client.List(ctx, triggerdev.ListFilter{Size: 1, From: time.UnixMilli(1)})
	if err != nil {
		d.find("key", fmt.Sprintf("%s: %s", d.TriggerAPIURL, err), keyFix(err))
		return
	}
	d.ok("key", "%s takes the key (%s), in %d ms", d.TriggerAPIURL, environmentName(client.Environment()), time.Since(begun).Milliseconds())
	if !clock.at.IsZero() {
		d.compareClock("Trigger.dev's clock", clock.at)
	}
	if len(page.Runs) > 0 && page.Runs[0].Env != nil {
		d.compareEnvironment(page.Runs[0].Env.ID, client.Environment())
	}
}

func keyFix(err error) string {
	if triggerdev.KeyRefused(err) {
		return "set TRIGGER_SECRET_KEY to a secret key of the project: Trigger.dev's dashboard shows it under API keys, one for each environment"
	}
	return "see that TRIGGER_API_URL is right and can be reached from here; behind a proxy set HTTPS_PROXY"
}

func environmentName(word string) string {
	if word == "" {
		return "of no known form"
	}
	return "environment " + word
}

// compareEnvironment finds runs that the key cannot see: with it they would look gone.
func (d *doctor) compareEnvironment(id, word string) {
	if !d.known {
		return
	}
	var elsewhere int64
	for other, n := range d.signs.open {
		if other != id {
			elsewhere += n
		}
	}
	if elsewhere > 0 {
		d.find("runs", fmt.Sprintf("%d open runs are in another environment than the key's (%s)", elsewhere, word),
			"use the key of their environment, or another database: one database goes with one environment")
		return
	}
	d.ok("runs", "the open runs are in the key's environment")
}

// clockReader reads the time off an answer.
type clockReader struct{ at time.Time }

// RoundTrip implements http.RoundTripper.
func (c *clockReader) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		c.at, _ = http.ParseTime(res.Header.Get("Date")) // none, or nonsense: the clock is not looked at
	}
	return res, err
}

// lookAtServer asks a running sidejob how it is.
func (d *doctor) lookAtServer(ctx context.Context) {
	to, err := d.serverFlags.caller(d.std)
	if err != nil {
		d.find("server", err.Error(), "set SIDEJOB_URL and SIDEJOB_TOKEN right")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, doctorPatience)
	defer cancel()
	got, err := to.send(ctx, apiCall{method: http.MethodGet, path: "/readyz"}, "", nil)
	if err != nil {
		d.skip("server", "no sidejob answers at %s", to.shown)
		return
	}
	var view readyView
	if err := json.Unmarshal(got.body, &view); err != nil || view.Status == "" {
		d.find("server", fmt.Sprintf("what answers at %s is no sidejob", to.shown), "set SIDEJOB_URL to where sidejob listens")
		return
	}
	d.healthy = true
	for _, note := range view.Notes {
		d.find("server", note, "see its log; /readyz says when it is over")
	}
	if len(view.Notes) == 0 {
		d.ok("server", "%s is %s, led by %s", to.shown, view.Status, leaderText(view))
	}
	d.lookAtToken(ctx, to)
}

func leaderText(v readyView) string {
	switch {
	case v.Leader == nil:
		return "nobody"
	case *v.Leader == v.Instance:
		return "itself (" + v.Instance + ")"
	}
	return *v.Leader
}

// lookAtToken sees whether commands are let in.
func (d *doctor) lookAtToken(ctx context.Context, to *caller) {
	got, err := to.send(ctx, apiCall{method: http.MethodGet, path: "/api/stats"}, "", nil)
	var stats statsView
	switch {
	case err != nil:
		d.find("token", withoutURL(err).Error(), "see its log")
	case got.status == http.StatusUnauthorized:
		d.find("token", "the server does not take the token", "set SIDEJOB_TOKEN, or run this where the server's sidejob.token is")
	case got.status != http.StatusOK || json.Unmarshal(got.body, &stats) != nil:
		d.find("token", fmt.Sprintf("the API answers %d", got.status), "see its log")
	case stats.Version != version():
		d.find("token", fmt.Sprintf("the server is version %s, this one %s", stats.Version, version()), "use the same on both sides")
	default:
		d.ok("token", "the API lets commands in")
	}
}

// lookAtWebhook sends a signed event that is about nothing, and sees whether it is
// believed.
func (d *doctor) lookAtWebhook(ctx context.Context) {
	list, err := environment(d.std.env).secret("TRIGGER_WEBHOOK_SECRET")
	secrets := readSecrets(list)
	switch {
	case err != nil:
		return // lookAtEnvironment has told
	case len(secrets) == 0:
		d.skip("webhook", "no TRIGGER_WEBHOOK_SECRET: events are refused, and ends are heard by the stream and by polling")
		return
	case !d.healthy && d.WebhookURL == "":
		d.skip("webhook", "no server to send an event to")
		return
	}
	for i, secret := range secrets {
		d.tryEvent(ctx, i+1, len(secrets), secret)
	}
}

func (d *doctor) tryEvent(ctx context.Context, n, of int, secret string) {
	which := ""
	if of > 1 {
		which = fmt.Sprintf(" (secret %d of %d)", n, of)
	}
	where, status, why, err := d.sendEvent(ctx, secret)
	switch {
	case err != nil:
		d.find("webhook", fmt.Sprintf("%s cannot be reached: %s", where, withoutURL(err)), "see that the address is right, and that what stands before sidejob lets POST through")
	case status == http.StatusOK:
		d.ok("webhook", "an event went to %s and was believed%s", where, which)
	case status == http.StatusUnauthorized:
		d.find("webhook", fmt.Sprintf("the event was not believed%s: %s", which, why), "give the server this TRIGGER_WEBHOOK_SECRET; a proxy must not touch the body")
	case status == http.StatusServiceUnavailable:
		d.find("webhook", fmt.Sprintf("the server cannot take events: %s", why), "start the server with TRIGGER_WEBHOOK_SECRET")
	default:
		d.find("webhook", fmt.Sprintf("%s answered %d %s", where, status, why), "see that it leads to sidejob's "+webhookPath)
	}
}

func (d *doctor) sendEvent(ctx context.Context, secret string) (where string, status int, why string, err error) {
	to, err := d.serverFlags.caller(d.std)
	if err != nil {
		return "", 0, "", err
	}
	where, address := to.shown, to.base+webhookPath
	if d.WebhookURL != "" {
		where, address = d.WebhookURL, d.WebhookURL
	}
	ctx, cancel := context.WithTimeout(ctx, doctorPatience)
	defer cancel()
	id := "doctor-" + uuid.NewString()
	body := fmt.Appendf(nil, `{"id":%q,"type":"alert.doctor"}`, id)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return where, 0, "", errors.New("it is no address")
	}
	req.Header.Set("Content-Type", "application/json")
	signStandard(req.Header, secret, id, body, now())
	res, err := to.http.Do(req)
	if err != nil {
		return where, 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	var p problemBody
	if json.Unmarshal(text, &p) == nil {
		why = p.Detail
	}
	return where, res.StatusCode, why, err
}
