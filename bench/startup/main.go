// Command startup measures a start with very many unfinished jobs: when the API
// answers, how many calls reconciling takes, and the memory.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"sidejob/bench/internal/rig"
)

func main() {
	binary := flag.String("sidejob", "../dist/sidejob", "the binary to measure")
	jobs := flag.Int("jobs", 100_000, "how many unfinished jobs")
	flag.Parse()
	if err := measure(*binary, *jobs); err != nil {
		log.Fatal(err)
	}
}

func measure(binary string, jobs int) error {
	dir, err := os.MkdirTemp("", "sidejob-startup-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	truth, address, proxy := rig.Address(), rig.Address(), rig.Address()
	runEmulator := func(limit string) (*rig.Process, error) {
		p, _, err := rig.Start(binary, filepath.Join(dir, "emulator.log"), nil, "http://"+truth+"/healthcheck",
			"emulator", "--emulator-listen", truth, "--state", filepath.Join(dir, "emulator.state"), "--emulator-rate-limit="+limit)
		return p, err
	}
	runServer := func(api string) (*rig.Process, time.Duration, error) {
		return rig.Start(binary, filepath.Join(dir, "server.log"),
			[]string{"TRIGGER_SECRET_KEY=tr_dev_bench", "TRIGGER_API_URL=http://" + api, "SIDEJOB_TOKEN=bench"}, "http://"+address+"/livez",
			"serve", "--listen", address, "--database", filepath.Join(dir, "x.db"))
	}
	emulator, err := runEmulator("-1")
	if err != nil {
		return err
	}
	server, _, err := runServer(truth)
	if err != nil {
		return err
	}
	if err := fill(address, jobs); err != nil {
		return err
	}
	server.Stop()
	emulator.Stop()

	if emulator, err = runEmulator("0"); err != nil {
		return err
	}
	defer emulator.Stop()
	counter, err := rig.Count(proxy, "http://"+truth)
	if err != nil {
		return err
	}
	server, ready, err := runServer(proxy)
	if err != nil {
		return err
	}
	defer server.Stop()
	begun := time.Now()
	var page struct{ Jobs []any }
	if err := rig.JSON("GET", "http://"+address+"/api/jobs?limit=10", nil, &page); err != nil {
		return err
	}
	fmt.Printf("%d unfinished jobs: exec to /livez %s, first list %s\n", jobs, ready.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))
	for deadline := time.Now().Add(20 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		var state struct {
			Status string
			Notes  []string
		}
		if err := rig.JSON("GET", "http://"+address+"/readyz", nil, &state); err != nil {
			return err
		}
		if state.Status == "ready" {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it is still not ready: %v; calls %v", state.Notes, counter.Counts())
		}
	}
	rss, peak := server.RSS()
	fmt.Printf("reconciled after %s; calls: %v; memory %.0f MiB, at most %.0f MiB\n", time.Since(begun).Round(time.Millisecond), counter.Counts(), rss, peak)
	return nil
}

// fill schedules jobs that are due in an hour, and waits until all have their run.
func fill(address string, jobs int) error {
	due := time.Now().Add(24 * time.Hour)
	for made := 0; made < jobs; {
		var batch []any
		for len(batch) < 1000 && made < jobs {
			batch = append(batch, map[string]any{"type": "work", "executor": "trigger", "triggerTaskId": "work", "due": due})
			made++
		}
		if err := rig.JSON("POST", "http://"+address+"/api/jobs/batch", map[string]any{"jobs": batch}, nil); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(20 * time.Minute); ; time.Sleep(time.Second) {
		var stats struct{ Outbox struct{ Depth int } }
		if err := rig.JSON("GET", "http://"+address+"/api/stats", nil, &stats); err != nil {
			return err
		}
		if stats.Outbox.Depth == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d jobs have no run yet", stats.Outbox.Depth)
		}
	}
}
