//go:build integration

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// controls are test builds of hbd in which one guarantee is broken on purpose, each
// with a scenario that must fail because of it. The build tags are for this alone.
var controls = []struct {
	tag      string
	scenario string // as go test -run takes it
	seen     *regexp.Regexp
}{
	{"break_fence", "^TestHost$/^link_cut", regexp.MustCompile(`G1:|was seen serving in a look|acknowledged a write without a lease|acknowledges for all we know`)},
	{"break_lease_wait", "^TestHost$/^hbd_frozen", regexp.MustCompile(`G1:|was seen serving in a look`)},
	{"break_tickle", "^TestTickle$/^host_killed", regexp.MustCompile(`still waits: it hangs`)},
	{"break_announce", "^TestAddress$/^clients_follow", regexp.MustCompile(`waiting for clients to write through the address`)},
}

// controlLease is the lease of the builds in which the fence is skipped: so much longer than the detection of a lost host that the old primary
// still serves when the new one does, on a slow machine too.
const controlLease = "HIGHBASE_CONTROL_LEASE"

// controlSettings adds what a control asks for to a cluster's settings.
func controlSettings(s map[string]string) map[string]string {
	lease := os.Getenv(controlLease)
	if lease == "" {
		return s
	}
	out := map[string]string{"lease": lease}
	for k, v := range s {
		out[k] = v
	}
	return out
}

// TestControls breaks hbd and demands that the scenarios notice. It is slow, because
// a broken build often fails by never getting well: HIGHBASE_CONTROLS=1 lets it run.
func TestControls(t *testing.T) {
	if os.Getenv("HIGHBASE_CONTROLS") == "" {
		t.Skip("skipping, slow: set HIGHBASE_CONTROLS=1")
	}
	root, err := repositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range controls {
		t.Run(c.tag, func(t *testing.T) {
			hbd := filepath.Join(t.TempDir(), "hbd")
			build := exec.CommandContext(t.Context(), "go", "build", "-tags", c.tag, "-o", hbd, "./cmd/hbd")
			build.Dir = root
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("building with %s: %v\n%s", c.tag, err, out)
			}
			run := exec.CommandContext(t.Context(), self, "-test.run", c.scenario, "-test.v")
			run.Env = append(os.Environ(), "HIGHBASE_HBD="+hbd, "HIGHBASE_CONTROLS=", "HIGHBASE_REQUIRE=1", controlLease+"=5s")
			out, err := run.CombinedOutput()
			if err == nil {
				t.Fatalf("%s is broken on purpose and %s passes", c.tag, c.scenario)
			}
			if !c.seen.Match(out) {
				t.Errorf("%s failed, but not because of %s:\n%s", c.scenario, c.tag, out)
			}
		})
	}
}
