// Command latency measures, without webhooks, how long after a run's end its row says
// so: the emulator's own finishedAt against the row's history.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sidejob/bench/internal/rig"
)

func main() {
	binary := flag.String("sidejob", "../dist/sidejob", "the binary to measure")
	runs := flag.Int("runs", 1000, "how many runs")
	rate := flag.Int("rate", 20, "how many are scheduled a second")
	flag.Parse()
	if err := measure(*binary, *runs, *rate); err != nil {
		log.Fatal(err)
	}
}

func measure(binary string, runs, rate int) error {
	dir, err := os.MkdirTemp("", "sidejob-latency-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	tasks := filepath.Join(dir, "tasks.json")
	if err := os.WriteFile(tasks, []byte(`{"work":{"durationMs":1000,"output":{"ok":true}}}`), 0o600); err != nil {
		return err
	}
	truth, address, proxy := rig.Address(), rig.Address(), rig.Address()
	emulator, _, err := rig.Start(binary, filepath.Join(dir, "emulator.log"), nil, "http://"+truth+"/healthcheck",
		"emulator", "--emulator-listen", truth, "--emulator-tasks", tasks)
	if err != nil {
		return err
	}
	defer emulator.Stop()
	counter, err := rig.Count(proxy, "http://"+truth)
	if err != nil {
		return err
	}
	server, _, err := rig.Start(binary, filepath.Join(dir, "server.log"),
		[]string{"TRIGGER_SECRET_KEY=tr_dev_bench", "TRIGGER_API_URL=http://" + proxy, "SIDEJOB_TOKEN=bench"}, "http://"+address+"/livez",
		"serve", "--listen", address, "--database", filepath.Join(dir, "x.db"), "--sync-interval", "5m")
	if err != nil {
		return err
	}
	defer server.Stop()

	tick := time.NewTicker(time.Second / time.Duration(rate))
	var ids []int64
	for range runs {
		<-tick.C
		var made struct{ ID int64 }
		if err := rig.JSON("POST", "http://"+address+"/api/jobs?waitMs=0", map[string]any{"type": "work", "executor": "trigger", "triggerTaskId": "work"}, &made); err != nil {
			return err
		}
		ids = append(ids, made.ID)
	}
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		var open struct{ Count int }
		if err := rig.JSON("GET", "http://"+address+"/api/jobs/count?finished=false&executor=trigger", nil, &open); err != nil {
			return err
		}
		if open.Count == 0 {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d jobs are still open", open.Count)
		}
	}
	return report(truth, address, ids, counter)
}

// report compares the emulator's clock with the first line of each row's history that
// says the run has ended. Both run on this machine.
func report(truth, address string, ids []int64, counter *rig.Counter) error {
	var all struct {
		Runs []struct {
			ID         string
			FinishedAt time.Time
		}
	}
	if err := rig.JSON("GET", "http://"+truth+"/emulator/runs?values=false", nil, &all); err != nil {
		return err
	}
	ended := map[string]time.Time{}
	for _, r := range all.Runs {
		ended[r.ID] = r.FinishedAt
	}
	var late []time.Duration
	for _, id := range ids {
		var job struct{ TriggerRunID string }
		var history struct {
			Events []struct {
				At time.Time
				To string
			}
		}
		base := fmt.Sprintf("http://%s/api/jobs/%d", address, id)
		if err := rig.JSON("GET", base, nil, &job); err != nil {
			return err
		}
		if err := rig.JSON("GET", base+"/events", nil, &history); err != nil {
			return err
		}
		for _, e := range history.Events {
			if e.To == "told completed" || e.To == "completed" {
				late = append(late, e.At.Sub(ended[job.TriggerRunID]))
				break
			}
		}
	}
	if len(late) != len(ids) || len(ended) != len(ids) {
		return fmt.Errorf("%d rows ended of %d; the emulator has %d runs", len(late), len(ids), len(ended))
	}
	slices.Sort(late)
	at := func(q float64) time.Duration {
		return late[min(len(late)-1, int(q*float64(len(late))))].Round(time.Millisecond)
	}
	fmt.Printf("%d runs, webhooks off: end of the run to the row: median %s, p90 %s, p99 %s, max %s\n", len(ids), at(0.5), at(0.9), at(0.99), at(1))
	fmt.Printf("calls: %v\n", counter.Counts())
	return nil
}
