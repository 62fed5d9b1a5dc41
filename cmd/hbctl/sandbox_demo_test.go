package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/highbase/highbase/cluster/api"
	"github.com/highbase/highbase/sandbox"
)

func plainPaint(_ style, text string) string { return text }

// sampleReport is a demo in which everything held.
func sampleReport() demoReport {
	return demoReport{OK: true, Sandbox: "demo-1", Server: "mariadb", Timing: "lan", ElapsedMS: 7300,
		Steps: []demoStep{
			{Fault: "server on db1 killed", Decided: api.KindRestart, To: "db1", WriteGapMS: 207.4, Acknowledged: 221, Following: 2, Replicas: 2, Phases: []api.Phase{}},
			{Fault: "host db1 killed", Decided: api.KindTakeover, To: "db2", WriteGapMS: 1365, Acknowledged: 174, Following: 1, Replicas: 2, Phases: []api.Phase{}},
			{Fault: "host db1 started again", Decided: decidedRejoin, To: "db1", WriteGapMS: 9.96, Acknowledged: 458, Following: 2, Replicas: 2, Phases: []api.Phase{}},
		},
		Writes: demoWrites{Writers: 2, LoadCounts: sandbox.LoadCounts{Acknowledged: 853, Unknown: 4}},
		Nodes:  []demoNode{{ID: "db1"}, {ID: "db2"}, {ID: "db3"}},
	}
}

func TestDemoTable(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*demoReport)
		want   string
	}{
		"held": {func(*demoReport) {}, `
FAULT                      DECIDED            WRITE GAP  ACKNOWLEDGED  LOST  FOLLOWING
1. server on db1 killed    restart in place      207 ms           221     0  2 of 2
2. host db1 killed         takeover to db2       1.36 s           174     0  1 of 2
3. host db1 started again  rejoin as replica    10.0 ms           458     0  2 of 2
all                                                               853     0

All held: every acknowledged write is on all 3 servers (7 s, everything removed)
`},
		"failed": {func(r *demoReport) {
			r.OK, r.Reason = false, "step 2 (host db1 killed): a failover was decided, expected a takeover\n1 acknowledged writes are lost, the first by writer 1 with number \x1b[7"
			r.Steps, r.Writes.Lost = r.Steps[1:2], 1
			r.Steps[0].Lost = 1
		}, `
FAULT               DECIDED          WRITE GAP  ACKNOWLEDGED  LOST  FOLLOWING
1. host db1 killed  takeover to db2     1.36 s           174     1  1 of 2
all                                                      853     1

Failed: step 2 (host db1 killed): a failover was decided, expected a takeover 1 acknowledged writes
are lost, the first by writer 1 with number �[7 (7 s, everything removed)
`},
		"interrupted": {func(r *demoReport) { r.OK, r.Reason, r.Nodes = false, "interrupted", nil }, "\nFailed: interrupted (7 s, everything removed)\n"},
	} {
		r := sampleReport()
		c.change(&r)
		var b strings.Builder
		if err := r.text(&b, plainPaint, true); err != nil || b.String() != c.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, b.String(), c.want)
		}
	}
}

func TestDemoStory(t *testing.T) {
	var out bytes.Buffer
	n := &narrator{w: &out}
	s := sampleReport().Steps[1]
	s.Cause = "2 of 3 voters reach neither its hbd nor its mysqld, and this sentence goes on until it no longer fits"
	s.Problem = "unexpected: something"
	s.Phases = []api.Phase{{Name: "detect", MS: 1233}, {Name: "freeze", MS: 2.04}}
	n.step(s, api.Status{Primary: "db2", Epoch: 2}, 345)
	want := `   decided   takeover to db2, because 2 of 3 voters reach neither its hbd nor its mysqld, and this
             sentence goes on until it no longer fits
   phases    detect        1.23 s
             freeze        2.0 ms
   write gap 1.36 s; 345 writes acknowledged so far
   now       db2 is primary in epoch 2, 1 of 2 replicas follow
   failed    unexpected: something
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	(&narrator{w: &out, colour: true}).head("1. %s", "a")
	if out.String() != "\n\x1b[1m1. a\x1b[0m\n" {
		t.Errorf("a coloured head is %q", out.String())
	}
}

func TestWrap(t *testing.T) {
	for in, want := range map[string][]string{
		"":                {""},
		"short":           {"short"},
		"0123456789":      {"0123456789"},
		"one two three 4": {"one two", "three 4"},
		"0123456789abc d": {"0123456789abc", "d"},
		"äöü äöü äöü":     {"äöü äöü", "äöü"},
		"01234567890123":  {"01234567890123"},
	} {
		if got := wrap(in, 10); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestDemoTells: what passed between the fault and the incident is told as a phase, once, and not for a planned change.
func TestDemoTells(t *testing.T) {
	fault := time.Now()
	in := api.Incident{ID: 3, Kind: api.KindTakeover, Started: api.At(fault.Add(40 * time.Millisecond)), Phases: []api.Phase{{Name: "fence", MS: 7}}}
	names := func(s demoStep) string {
		var all []string
		for _, p := range s.Phases {
			all = append(all, p.Name)
		}
		return strings.Join(all, " ")
	}
	var s demoStep
	if s.tell(in, fault); names(s) != "detect fence" || s.Phases[0].MS != 40 || s.Incident != 3 {
		t.Errorf("a takeover is told as %+v", s)
	}
	if s.tell(in, fault.Add(time.Second)); s.Phases[0].MS != 0 {
		t.Errorf("an incident that began before its fault took %v ms to detect", s.Phases[0].MS)
	}
	in.Phases = append(in.Phases, api.Phase{Name: "detect", MS: 1})
	if s.tell(in, fault); names(s) != "fence detect" {
		t.Errorf("with a detection of its own: %s", names(s))
	}
	in.Kind, in.Phases = api.KindSwitchover, []api.Phase{{Name: "release"}}
	if s.tell(in, fault); names(s) != "release" {
		t.Errorf("a switchover is told as %s", names(s))
	}
}

// TestWholeCluster: every way in which a cluster can be less than whole is seen.
func TestWholeCluster(t *testing.T) {
	d := &demo{facts: sandbox.Status{Hosts: []sandbox.Host{{Name: "db1", Role: sandbox.RoleData}, {Name: "db2", Role: sandbox.RoleData}, {Name: "client", Role: sandbox.RoleClient}}}}
	sample := func() api.Status {
		return api.Status{Verdict: api.StandingHealthy, Primary: "db1", Leader: "db2", Phase: api.PhaseSteady, VIPs: []api.VIP{{Address: "v", Holder: "db1"}},
			Nodes: []api.Node{{ID: "db1", Role: api.RolePrimary, Health: api.HealthOK, Server: api.ServerUp, Writable: true},
				{ID: "db2", Role: api.RoleReplica, Health: api.HealthOK, Server: api.ServerUp}}}
	}
	if !d.whole(sample()) {
		t.Error("a whole cluster is not seen as whole")
	}
	for name, spoil := range map[string]func(*api.Status){
		"degraded":         func(st *api.Status) { st.Verdict = api.StandingDegraded },
		"no primary":       func(st *api.Status) { st.Primary = "" },
		"no leader":        func(st *api.Status) { st.Leader = "" },
		"operation":        func(st *api.Status) { st.Operation = &api.Operation{} },
		"phase":            func(st *api.Status) { st.Phase = api.PhaseSettling },
		"address":          func(st *api.Status) { st.VIPs[0].Holder = "db2" },
		"not writable":     func(st *api.Status) { st.Nodes[0].Writable = false },
		"two writable":     func(st *api.Status) { st.Nodes[1].Writable = true },
		"replica joining":  func(st *api.Status) { st.Nodes[1].Role = api.RoleJoining },
		"replica suspect":  func(st *api.Status) { st.Nodes[1].Health = api.HealthSuspect },
		"replica down":     func(st *api.Status) { st.Nodes[1].Server = api.ServerDown },
		"replica is gone":  func(st *api.Status) { st.Nodes = st.Nodes[:1] },
		"primary is alien": func(st *api.Status) { st.Primary, st.VIPs[0].Holder = "db9", "db9" },
	} {
		st := sample()
		if spoil(&st); d.whole(st) {
			t.Errorf("%s: seen as whole", name)
		}
	}
}

// TestDemoJSON: every key is documented, and lists are never null.
func TestDemoJSON(t *testing.T) {
	text := page(t)
	for _, v := range []any{demoReport{}, demoStep{}, demoWrites{}, sandbox.LoadCounts{}, demoNode{}} {
		typ := reflect.TypeOf(v)
		for i := range typ.NumField() {
			if key, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ","); key != "" && !strings.Contains(text, "`"+key+"`") {
				t.Errorf("docs/hbctl.md does not have the key %q of %s", key, typ.Name())
			}
		}
	}
	d := &demo{a: &app{}, say: &narrator{}}
	if err := d.prepare(); err != nil {
		t.Fatal(err)
	}
	d.report.Steps = append(d.report.Steps, demoStep{Phases: []api.Phase{}})
	data, err := json.Marshal(d.report)
	if err != nil || bytes.Contains(data, []byte("null")) {
		t.Errorf("%s, %v", data, err)
	}
}
