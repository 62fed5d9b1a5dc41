package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
)

var update = flag.Bool("update", false, "rewrite the golden files; read the diff before you commit it")

// now is the moment at which the golden files are printed.
var now = time.Date(2026, 11, 23, 14, 3, 7, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

func healthyStatus() api.Status {
	return api.Status{
		Cluster: "shop", Verdict: api.StandingHealthy, FailuresTolerated: 1,
		IfPrimaryDied: "db2 takes over in about 0.9 s, 0 acknowledged writes lost",
		Epoch:         42, Primary: "db1", PrimarySince: api.At(now.Add(-(6*24*time.Hour + 131*time.Minute))),
		Leader: "db2", Phase: api.PhaseSteady, Mode: "auto", GateKernel: true, ToldBy: "db2", AgeMS: 8,
		VIPs: []api.VIP{{Address: "10.0.0.100", Holder: "db1"}},
		Sync: api.Sync{Set: []string{"db2"}, Acks: 1}, DisksSurvived: 1,
		Nodes: []api.Node{
			{ID: "db1", Role: api.RolePrimary, Health: api.HealthOK, Server: api.ServerUp, Version: "MariaDB 10.11.19",
				Writable: true, GTID: "0-1-4711", LeaseMS: 1420, Voter: true},
			{ID: "db2", Role: api.RoleReplica, Health: api.HealthOK, Server: api.ServerUp, Version: "MariaDB 10.11.19",
				GTID: "0-1-4711", LagSeconds: ptr(0.0), Voter: true, Sync: api.SyncAck, Note: "next"},
			{ID: "db3", Role: api.RoleReplica, Health: api.HealthOK, Server: api.ServerUp, Version: "MariaDB 10.11.19",
				GTID: "0-1-4710", LagSeconds: ptr(0.2), Voter: true, Sync: api.SyncReserve, Note: "reserve"},
		},
		LastIncident: &api.Incident{ID: 17, Kind: api.KindSwitchover, From: "db3", To: "db1", Epoch: 42, Actor: "ann",
			Cause: "asked for", Started: api.At(now.Add(-(3*24*time.Hour + 252*time.Minute))), WriteGapMS: ptr(18.2),
			Phases: []api.Phase{{Name: "fence", MS: 2.1}, {Name: "promote", MS: 4}}, Outcome: api.OutcomeDone,
			Timeline: []api.Event{{MS: 0, Node: "db2", Text: "switchover asked for by ann"}, {MS: 12.5, Node: "db1", Text: "barrier acknowledged"}}},
	}
}

func statuses() map[string]api.Status {
	degraded := healthyStatus()
	degraded.Verdict, degraded.FailuresTolerated, degraded.Degraded = api.StandingDegraded, 0, true
	degraded.ToldBy, degraded.AgeMS = "db1", 11
	degraded.Why = []string{"sync set empty since 14:01:22Z: db2 not answering (host down, 3 of 3 paths)", "db3 in maintenance (ann: disk swap)"}
	degraded.IfPrimaryDied = "no automatic failover: 212 transactions are on db1 only"
	degraded.Sync.Set, degraded.Sync.Acks, degraded.DisksSurvived = nil, 0, 0
	degraded.DegradedSince, degraded.DegradedWhy = api.At(now.Add(-105*time.Second)), "for 10s fewer than 1 members could acknowledge: db2 is out of reach"
	degraded.Next = []string{"bring a replica back, it is taken in by itself: docs/runbooks/degraded.md"}
	degraded.Nodes[1].Sync = api.SyncBlocked
	degraded.Paused = true
	degraded.Pause = &api.Pause{By: "ann@bastion", Why: "disk swap", Since: api.At(now.Add(-time.Hour)), Until: api.At(now.Add(time.Hour))}
	degraded.GateKernel = false
	degraded.Nodes[1].Health, degraded.Nodes[1].Server, degraded.Nodes[1].LagSeconds = api.HealthFailed, api.ServerUnknown, nil

	changing := healthyStatus()
	changing.Verdict, changing.Nodes[1].Sync, changing.LossyEpoch, changing.LastIncident.Lossy = api.StandingDegraded, api.SyncLeaving, 42, true
	changing.Sync.Change = &api.SyncChange{Kind: "shrink", Node: "db2", Cause: "db2 has no running mysqld", Since: api.At(now.Add(-3 * time.Second))}

	running := healthyStatus()
	running.Verdict, running.Primary, running.PrimarySince = api.StandingNoPrimary, "", api.Time{}
	running.Phase, running.VIPs[0].Holder, running.Nodes[0].Role = api.PhaseFencing, "", api.RoleFenced
	running.Leader, running.ToldBy = "", "w1"
	running.IfPrimaryDied = ""
	running.Operation = &api.Operation{ID: 18, Kind: api.KindTakeover, From: "db1", To: "db2", Step: "fencing", Actor: "db2",
		ElapsedMS: 310, LimitMS: 1500, Phases: []api.Phase{{Name: "detect", MS: 420}, {Name: "freeze", MS: 2.2}}}
	running.LastIncident = nil
	running.Nodes = append(running.Nodes, api.Node{ID: "w1", Role: api.RoleWitness, Health: api.HealthOK, Server: api.ServerNone, Voter: true})

	hostile := api.Status{Cluster: "a\x1b[2Jb", Verdict: "weird\n", Why: []string{"line\nbreak"}, Nodes: []api.Node{{ID: "\x07", Note: "x\ty"}}}
	return map[string]api.Status{"healthy": healthyStatus(), "degraded": degraded, "changing": changing, "operation": running, "empty": {}, "hostile": hostile}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got\n%s\nwant\n%s", path, got, want)
	}
}

func TestStatusGolden(t *testing.T) {
	for name, s := range statuses() {
		var b bytes.Buffer
		if err := writeStatus(&b, s, now, false); err != nil {
			t.Fatal(err)
		}
		for _, r := range b.String() {
			if r < ' ' && r != '\n' {
				t.Errorf("%s: the text has the control character %U", name, r)
			}
		}
		golden(t, "status-"+name+".txt", b.Bytes())
		data, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "status-"+name+".json", append(data, '\n'))
	}
}

func TestColourAddsNothingButColour(t *testing.T) {
	var plain, coloured bytes.Buffer
	if err := writeStatus(&plain, healthyStatus(), now, false); err != nil {
		t.Fatal(err)
	}
	if err := writeStatus(&coloured, healthyStatus(), now, true); err != nil {
		t.Fatal(err)
	}
	stripped := strings.NewReplacer("\x1b[1;32m", "", "\x1b[0m", "").Replace(coloured.String())
	if stripped != plain.String() || coloured.Len() == plain.Len() {
		t.Errorf("coloured:\n%q", coloured.String())
	}
}

func TestIncidentAndWhyNotGolden(t *testing.T) {
	var b bytes.Buffer
	a := &app{out: &b, err: &b, output: "table"}
	if err := a.showIncident(*healthyStatus().LastIncident); err != nil {
		t.Fatal(err)
	}
	golden(t, "incident.txt", b.Bytes())
	b.Reset()
	if err := a.showHistory(api.History{Incidents: []api.Incident{*healthyStatus().LastIncident, {ID: 1}}}); err != nil {
		t.Fatal(err)
	}
	golden(t, "history.txt", b.Bytes())
	b.Reset()
	verdicts := []api.Verdict{{Rule: "candidate.reachable", Node: "db3", OK: true, Value: "3 of 3 paths", Threshold: "1 path"},
		{Rule: "candidate.lag", Node: "db3", Value: "14.2 s", Threshold: "2 s", Why: "too far behind to catch up in time"}}
	if err := a.showWhyNot(api.WhyNot{Node: "db3", Verdicts: verdicts}); err != nil {
		t.Fatal(err)
	}
	golden(t, "why-not.txt", b.Bytes())
	b.Reset()
	plan := &api.Plan{From: "db1", To: "db3", Steps: []string{"shrink the sync set to db3", "close the gate on db1"}, Gates: verdicts, PauseMS: 18}
	if err := a.showPlan(api.Result{Outcome: api.OutcomeRefused, Plan: plan, Rule: "candidate.lag", Node: "db3", Value: "14.2 s",
		Threshold: "2 s", Message: "db3 is too far behind"}); exitCode(err) != exitFailed {
		t.Fatal(err)
	}
	golden(t, "plan.txt", b.Bytes())
}
