package emulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// cancelRun answers alike for runs that wait, run and have ended.
func (e *Emulator) cancelRun(c *call) *reply {
	e.mu.Lock()
	defer e.mu.Unlock()
	id := c.r.PathValue("run")
	r, things := e.find(c.env.ID, id), []string{"runs:" + id}
	if r != nil {
		things = r.things()
	}
	if refused := c.denied("write", things...); refused != nil {
		return refused
	}
	if r == nil {
		return failure(http.StatusNotFound, "Resource not found")
	}
	e.cancel(r)
	return success(object("id", r.ID))
}

// replay makes a new run of an old one: without its delay, ttl, idempotency key and
// version.
func (e *Emulator) replay(c *call) *reply {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.find(c.env.ID, c.r.PathValue("run"))
	if r == nil {
		return failure(http.StatusNotFound, "Resource not found")
	}
	next := e.create(c.env, r.Task, order{
		payload: r.Payload, payloadType: r.PayloadType, tags: r.Tags, metadata: r.Seed, queue: r.Queue,
		concurrency: r.Concurrency, machine: r.Machine, test: r.Test,
	}, "")
	return success(object("id", next.ID))
}

// reschedule moves a delayed run. Here a delay that means nothing is an error.
func (e *Emulator) reschedule(c *call) *reply {
	if !json.Valid(c.body) {
		return failure(http.StatusInternalServerError, "Internal Server Error")
	}
	f := openForm(c.body)
	f.need("delay", "string")
	e.mu.Lock()
	defer e.mu.Unlock()
	until, err := parseDelay(f.members["delay"], e.clock.now())
	if err != nil {
		f.add("Invalid input", "delay")
	}
	r := e.find(c.env.ID, c.r.PathValue("run"))
	switch {
	case len(*f.issues) > 0:
		return issueList("Invalid request body", "issues", *f.issues)
	case r == nil:
		return failure(http.StatusNotFound, "Run not found")
	case r.Status != delayed:
		return failure(http.StatusBadRequest, "Cannot reschedule a run that is not delayed")
	case until == nil || *until < e.clock.now():
		return failure(http.StatusBadRequest, "Invalid delay: "+strings.Trim(string(f.members["delay"]), `"`))
	}
	r.Delay = until
	e.plan(r, stepEnqueue, *until)
	e.changed(r)
	return success(e.detail(r, c.version(), c.origin()))
}

func (e *Emulator) addTags(c *call) *reply {
	if !json.Valid(c.body) {
		return failure(http.StatusInternalServerError, "Something went wrong, please try again.")
	}
	f := openForm(c.body)
	f.need("tags", "string")
	tags, _ := f.readTags("tags")
	if len(*f.issues) > 0 {
		return issueList("Invalid request body", "issues", *f.issues)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.find(c.env.ID, c.r.PathValue("run"))
	if r == nil {
		return failure(http.StatusNotFound, "Run not found")
	}
	fresh := slices.DeleteFunc(tags, r.hasTag)
	total := len(r.Tags) + len(fresh)
	switch {
	case len(fresh) == 0:
		return success(object("message", "No new tags to add"))
	case total > tagsAtMost:
		return failure(http.StatusUnprocessableEntity, fmt.Sprintf(
			"Runs can only have %d tags, you're trying to set %d. These tags have not been set: '%s'.",
			tagsAtMost, total, strings.Join(fresh, "', '")))
	}
	r.Tags = slices.Sorted(slices.Values(append(slices.Clone(r.Tags), fresh...)))
	for _, tag := range fresh {
		e.shelve(r, byTag, tag)
	}
	e.changed(r)
	r.joined = r.Seq
	return success(object("message", fmt.Sprintf("Successfully set %d new tags.", len(fresh))))
}

func (e *Emulator) whoami(c *call) *reply {
	return success(object("userId", "user_emulator", "email", "dev@localhost", "dashboardUrl", c.origin(),
		"project", object("ref", "proj_emulator", "name", "Emulator")))
}

func (e *Emulator) healthcheck(*call) *reply {
	return &reply{status: http.StatusOK, kind: "text/plain; charset=utf-8", raw: []byte("OK")}
}

// timezones lists zones that every zone database has. Schedules may name others.
func (e *Emulator) timezones(c *call) *reply {
	zones := []string{"UTC", "Africa/Abidjan", "Africa/Cairo", "Africa/Johannesburg", "Africa/Lagos", "Africa/Nairobi",
		"America/Anchorage", "America/Argentina/Buenos_Aires", "America/Bogota", "America/Chicago", "America/Denver",
		"America/Halifax", "America/Los_Angeles", "America/Mexico_City", "America/New_York", "America/Phoenix",
		"America/Sao_Paulo", "America/St_Johns", "America/Toronto", "Asia/Bangkok", "Asia/Dhaka", "Asia/Dubai",
		"Asia/Hong_Kong", "Asia/Jakarta", "Asia/Jerusalem", "Asia/Karachi", "Asia/Kathmandu", "Asia/Kolkata",
		"Asia/Manila", "Asia/Seoul", "Asia/Shanghai", "Asia/Singapore", "Asia/Tehran", "Asia/Tokyo",
		"Atlantic/Reykjavik", "Australia/Adelaide", "Australia/Brisbane", "Australia/Lord_Howe", "Australia/Perth",
		"Australia/Sydney", "Europe/Amsterdam", "Europe/Athens", "Europe/Berlin", "Europe/Dublin", "Europe/Istanbul",
		"Europe/Lisbon", "Europe/London", "Europe/Madrid", "Europe/Moscow", "Europe/Paris", "Europe/Rome",
		"Europe/Warsaw", "Europe/Zurich", "Pacific/Apia", "Pacific/Auckland", "Pacific/Chatham", "Pacific/Honolulu"}
	if c.r.URL.Query().Get("excludeUtc") == "true" {
		zones = zones[1:]
	}
	return success(object("timezones", zones))
}
