package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/highbase/highbase/cluster/api"
)

func TestUsageErrors(t *testing.T) {
	_, addr := newFakeNode(t, api.Status{})
	for _, c := range []struct {
		want string
		args []string
	}{
		{"Commands:", nil},
		{"did you mean status?", []string{"sttus"}},
		{"did you mean show?", []string{"incident", "shwo", "17"}},
		{"Commands:", []string{"incident"}},
		{"unknown flag", []string{"status", "--chekc"}},
		{"table or json", []string{"status", "-o", "yaml"}},
		{"accepts 1 arg", []string{"promote"}},
		{"accepts at most 1 arg", []string{"demote", "db1", "db2"}},
		{"add --yes", []string{"promote", "db2"}},
		{"add --yes", []string{"demote", "--no-input"}},
		{"exclude", []string{"status", "--check", "--watch"}},
		{"--for", []string{"pause", "--for", "10ms"}},
		{"not an incident's number", []string{"incident", "show", "x"}},
		{"is a URL", []string{"--addr", "http://db1:7948", "status"}},
		{"--timeout", []string{"--timeout", "0s", "status"}},
		{"unknown command", []string{"completion", "tcsh"}},
	} {
		if stdout, _ := checkRun(t, addr, exitUsage, c.want, c.args...); stdout != "" {
			t.Errorf("hbctl %v: stdout has %q", c.args, stdout)
		}
	}
	// Positive control: the same binary ends with 0 when the line is right.
	checkRun(t, addr, exitDone, "hbctl dev", "version")
}

func TestStatusCheckCodes(t *testing.T) {
	for verdict, code := range map[api.Standing]int{
		api.StandingHealthy: exitDone, api.StandingDegraded: exitDegraded, api.StandingNoPrimary: exitNoPrimary,
		api.StandingNoQuorum: exitNoPrimary, api.StandingNotBootstrapped: exitNoPrimary, api.StandingUnknown: exitNoPrimary,
		"of-a-later-version": exitNoPrimary,
	} {
		_, addr := newFakeNode(t, api.Status{Cluster: "shop", Verdict: verdict})
		checkRun(t, addr, code, "shop", "status", "--check")
		checkRun(t, addr, exitDone, "shop", "status")
	}
	checkRun(t, closedAddr(t), exitNoAnswer, "connection refused", "status", "--check")
}

func TestStatusJSONIsTheStatus(t *testing.T) {
	_, addr := newFakeNode(t, healthyStatus())
	stdout, stderr := checkRun(t, addr, exitDone, "", "status", "-o", "json")
	want, err := os.ReadFile("testdata/status-healthy.json")
	if err != nil {
		t.Fatal(err)
	}
	if stdout != string(want) || stderr != "" {
		t.Errorf("got\n%s\n%s", stdout, stderr)
	}
}

func TestAnyAddressServes(t *testing.T) {
	_, addr := newFakeNode(t, healthyStatus())
	checkRun(t, "", exitDone, "HEALTHY", "--addr", closedAddr(t)+","+addr, "status")
}

func TestOutcomesHaveTheirCodes(t *testing.T) {
	refused := api.Result{Outcome: api.OutcomeRefused, Rule: "candidate.lag", Node: "db2", Value: "14.2 s", Threshold: "2 s", Message: "too far behind"}
	for _, c := range []struct {
		name   string
		status int
		body   any
		code   int
		want   string
	}{
		{"done", 200, api.Result{Outcome: api.OutcomeDone, Operation: 17, Message: "db2 is the primary of epoch 43"}, exitDone, "epoch 43"},
		{"refused", 409, refused, exitFailed, "threshold  2 s"},
		{"failed", 500, api.Result{Outcome: api.OutcomeFailed, Message: "rolled back"}, exitFailed, "rolled back"},
		{"unknown", 202, api.Result{Outcome: api.OutcomeUnknown, Message: "leadership lost"}, exitUnknown, "leadership lost"},
		{"no leader", 503, api.ErrorBody{Error: "db1 knows no leader", How: "wait"}, exitFailed, "knows no leader"},
		{"no such node", 404, api.ErrorBody{Error: "no such node", How: "look"}, exitFailed, "no such node"},
		{"not authorised", 403, api.ErrorBody{Error: "who are you", How: "log in"}, exitNotAuthorised, "who are you"},
		{"broken", 500, api.ErrorBody{Error: "disk", How: "log"}, exitUnknown, "outcome unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, addr := newFakeNode(t, api.Status{})
			f.on("POST "+api.PathPromote, c.status, c.body)
			checkRun(t, addr, c.code, c.want, "promote", "db2", "--yes")
			if n := len(f.changes()); n != 1 {
				t.Errorf("the change was sent %d times", n)
			}
			stdout, _ := checkRun(t, addr, c.code, "", "promote", "db2", "--yes", "-o", "json")
			if _, isResult := c.body.(api.Result); isResult != json.Valid([]byte(stdout)) {
				t.Errorf("stdout with -o json is %q", stdout)
			}
		})
	}
}

func TestADeadNodeAfterTheRequestIsUnknown(t *testing.T) {
	f, addr := newFakeNode(t, api.Status{})
	f.handle("POST "+api.PathPromote, func(http.ResponseWriter, string) { panic(http.ErrAbortHandler) })
	checkRun(t, addr+","+addr, exitUnknown, "outcome unknown", "promote", "db2", "--yes")
	if n := len(f.changes()); n != 1 {
		t.Errorf("the change was sent %d times", n)
	}
}

func TestRequestsCarryWhatWasSaid(t *testing.T) {
	f, addr := newFakeNode(t, api.Status{})
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	by := `"actor":"ann@` + host + `"}`
	done := api.Result{Outcome: api.OutcomeDone, Message: "ok", Plan: &api.Plan{To: "db2", PauseMS: 18}}
	for _, c := range []struct {
		path, body string
		args       []string
	}{
		{api.PathPromote, `{"from":"","to":"db2","plan":true,"if_plan":"","wait_seconds":0,"kill":false,` + by, []string{"promote", "db2", "--plan"}},
		{api.PathPromote, `{"from":"","to":"db2","plan":false,"if_plan":"","wait_seconds":0,"kill":false,` + by, []string{"promote", "db2", "-y"}},
		{api.PathDemote, `{"from":"","to":"","plan":false,"if_plan":"7","wait_seconds":90,"kill":false,` + by, []string{"demote", "--yes", "--if-plan", "7", "--wait", "90s"}},
		{api.PathDemote, `{"from":"db1","to":"","plan":true,"if_plan":"","wait_seconds":0,"kill":true,` + by, []string{"demote", "db1", "--plan", "--kill"}},
		{api.PathPause, `{"for_seconds":3600,"why":"disk swap",` + by, []string{"pause", "--for", "1h", "--why", "disk swap"}},
		{api.PathPause, `{"for_seconds":2,"why":"",` + by, []string{"pause", "--for", "1500ms"}},
		{api.PathPause, `{"for_seconds":0,"why":"",` + by, []string{"pause"}},
		{api.PathResume, `{` + by, []string{"resume"}},
		{api.PathBootstrap, `{"primary":"db1",` + by, []string{"bootstrap", "--primary", "db1"}},
	} {
		f.on("POST "+c.path, 200, done)
		checkRun(t, addr, exitDone, "ok", c.args...)
		if all := f.changes(); all[len(all)-1] != c.path+" "+c.body {
			t.Errorf("hbctl %v sent %s, want %s %s", c.args, all[len(all)-1], c.path, c.body)
		}
	}
}

func TestPromoteFollowsToTheEnd(t *testing.T) {
	f, addr := newFakeNode(t, api.Status{})
	f.on("POST "+api.PathPromote, 202, api.Result{Outcome: api.OutcomeUnknown, Operation: 17})
	f.on("GET "+api.PathOperations+"17", 200, api.Result{Outcome: api.OutcomeDone, Operation: 17, Message: "db2 is the primary",
		Phases: []api.Phase{{Name: "fence", MS: 2}, {Name: "promote", MS: 4}}})
	stdout, stderr := checkRun(t, addr, exitDone, "db2 is the primary", "promote", "db2", "--yes")
	if !strings.Contains(stderr, "operation 17 begun") || !strings.Contains(stderr, "promote    4.0 ms") || !strings.HasPrefix(stdout, "done:") {
		t.Errorf("stdout %q\nstderr %q", stdout, stderr)
	}
}

func TestAnOperationThatDoesNotEndIsUnknown(t *testing.T) {
	f, addr := newFakeNode(t, api.Status{})
	running := api.Result{Outcome: api.OutcomeUnknown, Operation: 17}
	f.on("POST "+api.PathPromote, 202, running)
	f.on("GET "+api.PathOperations+"17", 200, running)
	checkRun(t, addr, exitUnknown, "operation 17 continues", "promote", "db2", "--yes", "--timeout", "300ms")
	// Ctrl-C does the same.
	begun := make(chan struct{})
	f.handle("GET "+api.PathOperations+"17", func(w http.ResponseWriter, _ string) {
		select {
		case begun <- struct{}{}:
		default:
		}
		fmt.Fprint(w, `{"outcome":"unknown","operation":"17"}`)
	})
	cmd := command(t, addr, "promote", "db2", "--yes")
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-begun
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	if cmd.ProcessState.ExitCode() != exitUnknown || !strings.Contains(out.String(), "operation 17 continues") {
		t.Errorf("%v: %s", err, &out)
	}
}

func TestReadsPrintTables(t *testing.T) {
	f, addr := newFakeNode(t, healthyStatus())
	incident := *healthyStatus().LastIncident
	f.on("GET "+api.PathHistory, 200, api.History{Incidents: []api.Incident{incident}})
	f.on("GET "+api.PathIncidents+"17", 200, incident)
	f.on("GET "+api.PathWhyNot+"db3", 200, api.WhyNot{Node: "db3", Verdicts: []api.Verdict{{Rule: "candidate.lag"}}})
	checkRun(t, addr, exitDone, "switchover  db3", "history")
	checkRun(t, addr, exitDone, "barrier acknowledged", "incident", "show", "17")
	checkRun(t, addr, exitDone, "cannot take over", "why-not", "db3")
	checkRun(t, addr, exitDone, `"eligible": false`, "why-not", "db3", "-o", "json")
	f.on("GET "+api.PathHistory, 200, api.History{})
	checkRun(t, addr, exitDone, "no incident", "history")
}

func TestWatchEndsWithCtrlC(t *testing.T) {
	_, addr := newFakeNode(t, healthyStatus())
	cmd := command(t, addr, "status", "--watch", "--interval", "10ms", "-o", "json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(out)
	for range 3 {
		var s api.Status
		if err := dec.Decode(&s); err != nil || s.Cluster != "shop" {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, io.MultiReader(dec.Buffered(), out)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestTheQuestionOnATerminal(t *testing.T) {
	f, addr := newFakeNode(t, api.Status{})
	f.handle("POST "+api.PathPromote, func(w http.ResponseWriter, body string) {
		if strings.Contains(body, `"plan":true`) {
			fmt.Fprint(w, `{"outcome":"done","plan":{"from":"db1","to":"db2","steps":["close the gate"],"pause_ms":18}}`)
			return
		}
		fmt.Fprint(w, `{"outcome":"done","operation":"17","message":"db2 is the primary"}`)
	})
	code, shown := onTerminal(t, addr, "n", "promote", "db2")
	if code != exitFailed || !strings.Contains(shown, "close the gate") || !strings.Contains(shown, "nothing was done") {
		t.Errorf("no: exit %d: %s", code, shown)
	}
	if code, shown := onTerminal(t, addr, "", "promote", "db2"); code != exitFailed {
		t.Errorf("empty: exit %d: %s", code, shown)
	}
	for _, asked := range f.changes() {
		if strings.Contains(asked, `"plan":false`) {
			t.Fatalf("not confirmed, and sent %s", asked)
		}
	}
	code, shown = onTerminal(t, addr, "y", "promote", "db2")
	if code != exitDone || !strings.Contains(shown, "db2 is the primary") {
		t.Errorf("yes: exit %d: %s", code, shown)
	}
	// What is refused is not asked about.
	f.on("POST "+api.PathPromote, 409, api.Result{Outcome: api.OutcomeRefused, Rule: "candidate.lag", Message: "too far behind"})
	code, shown = onTerminal(t, addr, "y", "promote", "db2")
	if code != exitFailed || strings.Contains(shown, "[y/N]") || !strings.Contains(shown, "candidate.lag") {
		t.Errorf("refused: exit %d: %s", code, shown)
	}
}
