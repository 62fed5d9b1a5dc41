package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/highbase/highbase/cluster/api"
)

// built is the binary under test, built once.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "hbctl-test")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "hbctl")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return path, fmt.Errorf("building hbctl: %w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, _ := built(); path != "" {
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// command prepares the binary with an environment of its own.
func command(t *testing.T, addr string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = []string{"HBCTL_ADDR=" + addr, "HOME=" + t.TempDir(), "SUDO_USER=ann"}
	return cmd
}

// hbctl runs the binary and gives exit code, stdout and stderr.
func hbctl(t *testing.T, addr string, args ...string) (int, string, string) {
	t.Helper()
	cmd := command(t, addr, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

// fakeNode is a strict stand-in for hbd: a request without an answer fails the test.
type fakeNode struct {
	t       *testing.T
	mu      sync.Mutex
	answers map[string]func(w http.ResponseWriter, body string)
	asked   []string
}

func newFakeNode(t *testing.T, status api.Status) (*fakeNode, string) {
	t.Helper()
	f := &fakeNode{t: t, answers: map[string]func(http.ResponseWriter, string){}}
	f.on("GET "+api.PathStatus, 200, status)
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return f, strings.TrimPrefix(srv.URL, "http://")
}

// on answers a request with a value as JSON.
func (f *fakeNode) on(request string, status int, v any) {
	f.t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		f.t.Fatal(err)
	}
	f.handle(request, func(w http.ResponseWriter, _ string) {
		w.WriteHeader(status)
		_, _ = w.Write(data)
	})
}

func (f *fakeNode) handle(request string, h func(http.ResponseWriter, string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[request] = h
}

// changes are the requests that were not reads, with their bodies.
func (f *fakeNode) changes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.asked...)
}

func (f *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Error(err)
	}
	f.mu.Lock()
	h := f.answers[r.Method+" "+r.URL.Path]
	if r.Method != http.MethodGet {
		f.asked = append(f.asked, r.URL.Path+" "+string(body))
	}
	f.mu.Unlock()
	if h == nil {
		f.t.Errorf("unexpected request %s %s %s", r.Method, r.URL.Path, body)
		http.NotFound(w, r)
		return
	}
	h(w, string(body))
}

func closedAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// checkRun runs the binary and checks code and texts; want is looked for in stdout and stderr together.
func checkRun(t *testing.T, addr string, code int, want string, args ...string) (stdout, stderr string) {
	t.Helper()
	got, stdout, stderr := hbctl(t, addr, args...)
	if got != code || !strings.Contains(stdout+stderr, want) {
		t.Errorf("hbctl %s: exit %d, want %d and %q\nstdout: %s\nstderr: %s", strings.Join(args, " "), got, code, want, stdout, stderr)
	}
	return stdout, stderr
}

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
		{api.PathPromote, `{"from":"","to":"db2","plan":true,` + by, []string{"promote", "db2", "--plan"}},
		{api.PathPromote, `{"from":"","to":"db2","plan":false,` + by, []string{"promote", "db2", "-y"}},
		{api.PathDemote, `{"from":"","to":"","plan":false,` + by, []string{"demote", "--yes"}},
		{api.PathDemote, `{"from":"db1","to":"","plan":true,` + by, []string{"demote", "db1", "--plan"}},
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

// onTerminal runs the binary on a pseudo-terminal, types answer at the question, and gives exit code
// and all that was shown.
func onTerminal(t *testing.T, addr, answer string, args ...string) (int, string) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("skipping, no pseudo-terminal here: %v", err)
	}
	defer ours.Close()
	if err := unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("skipping, no pseudo-terminal here: %v", err)
	}
	cmd := command(t, addr, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() }) // a test that hangs tells nothing
	defer timer.Stop()
	var shown strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := ours.Read(buf)
		shown.Write(buf[:n])
		if err != nil {
			break // EIO: the other side is closed
		}
		if strings.HasSuffix(shown.String(), "[y/N] ") {
			if _, err := ours.WriteString(answer + "\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() < 0 {
		t.Fatalf("%v; shown: %s", err, shown.String())
	}
	return cmd.ProcessState.ExitCode(), shown.String()
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
