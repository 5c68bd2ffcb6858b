package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"

	"sidejob/internal/job"
)

// registry is the host's list of jobs by name, read once at start. It never
// changes.
type registry struct {
	jobs map[string]definition
}

// definition is what a job of that name is, where a request leaves it out.
type definition struct {
	Executor      job.Executor     `json:"executor"`
	TriggerTaskID string           `json:"triggerTaskId,omitempty"`
	WorkerJobType string           `json:"workerJobType,omitempty"`
	Type          string           `json:"type,omitempty"`
	Description   string           `json:"description,omitempty"`
	RetryConfig   *job.RetryConfig `json:"retryConfig,omitempty"`
	CronSchedule  string           `json:"cronSchedule,omitempty"`
	Timezone      string           `json:"timezone,omitempty"`
	Misfire       job.Misfire      `json:"misfire,omitempty"`
	MisfireLimit  int              `json:"misfireLimit,omitempty"`
	FireLocally   bool             `json:"fireLocally,omitempty"`
	UserID        int64            `json:"userId,omitempty"`
	DataSchema    json.RawMessage  `json:"dataSchema,omitempty" doc:"JSON Schema; shown, not enforced"`
}

type registryView struct {
	Jobs map[string]definition `json:"jobs"`
}

// jobType is the type of jobs of this name.
func (d definition) jobType(name string) string {
	switch {
	case d.Type != "":
		return d.Type
	case d.WorkerJobType != "":
		return d.WorkerJobType
	}
	return name
}

// readRegistry reads the registry file; no path is an empty registry. An error names
// the job and the member that is wrong.
func readRegistry(path string) (registry, error) {
	if path == "" {
		return registry{jobs: map[string]definition{}}, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return registry{}, fmt.Errorf("read registry: %w", err)
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return registry{}, fmt.Errorf("read registry %s: want {\"NAME\":{…},…}: %w", path, err)
	}
	if twice := repeatedMember(text); twice != "" {
		return registry{}, fmt.Errorf("read registry %s: %s is given more than once", path, twice)
	}
	r := registry{jobs: make(map[string]definition, len(raw))}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		d, err := readDefinition(name, raw[name])
		if err != nil {
			return registry{}, fmt.Errorf("read registry %s: %s: %w", path, name, err)
		}
		r.jobs[name] = d
	}
	return r, nil
}

func readDefinition(name string, raw json.RawMessage) (d definition, err error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return d, err
	}
	if twice := repeatedMember(raw); twice != "" {
		return d, fmt.Errorf("%s: is given more than once", twice)
	}
	if d.Executor != job.Internal && d.Executor != job.Trigger {
		return d, fmt.Errorf("executor: is %q; it is internal or trigger", d.Executor)
	}
	return d, d.check(name)
}

// check has a job made of the definition, as the requests that name it will.
func (d definition) check(name string) error {
	spec := job.Spec{
		Type: d.jobType(name), UserID: d.UserID, Executor: d.Executor, TriggerTask: d.TriggerTaskID,
		Retry: d.RetryConfig, CronSchedule: d.CronSchedule, Timezone: d.Timezone,
		Misfire: d.Misfire, MisfireLimit: d.MisfireLimit, FireLocally: d.FireLocally,
	}
	_, _, err := job.New(spec, now(), "")
	return err
}

// fill gives a request that names a job of the registry what it leaves out.
func (r registry) fill(req jobRequest) (jobRequest, error) {
	if req.Name == "" {
		return req, nil
	}
	d, ok := r.jobs[req.Name]
	if !ok {
		return req, job.Problems{{Member: "name", Why: fmt.Sprintf("is %.100q, which is not in the registry", req.Name)}}
	}
	req.Type = cmp.Or(req.Type, d.jobType(req.Name))
	req.Executor = cmp.Or(req.Executor, d.Executor)
	if req.Executor == job.Trigger {
		req.TriggerTaskID = cmp.Or(req.TriggerTaskID, d.TriggerTaskID)
		req.FireLocally = req.FireLocally || d.FireLocally
	}
	req.RetryConfig = cmp.Or(req.RetryConfig, d.RetryConfig)
	req.CronSchedule = cmp.Or(req.CronSchedule, d.CronSchedule)
	req.Timezone = cmp.Or(req.Timezone, d.Timezone)
	req.Misfire = cmp.Or(req.Misfire, d.Misfire)
	if req.Misfire == job.FireAll {
		req.MisfireLimit = cmp.Or(req.MisfireLimit, d.MisfireLimit)
	}
	if req.UserID == nil {
		req.UserID = &d.UserID
	}
	return req, nil
}

// task is the Trigger.dev task of a row that names none: that of its type in the
// registry, else the type itself.
func (r registry) task(j job.Job) string {
	for _, name := range slices.Sorted(maps.Keys(r.jobs)) {
		if d := r.jobs[name]; d.jobType(name) == j.Type && d.TriggerTaskID != "" {
			return d.TriggerTaskID
		}
	}
	return j.Type
}
