package main

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/highbase/highbase/cluster/api"
)

// page is docs/hbctl.md.
func page(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/hbctl.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// missingFrom lists the commands and flags of the tree that text does not have.
func missingFrom(text string, root *cobra.Command) []string {
	var missing []string
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" {
			return
		}
		if c != root && !regexp.MustCompile(`(?m)^### `+regexp.QuoteMeta(c.CommandPath())+`$`).MatchString(text) {
			missing = append(missing, c.CommandPath())
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !regexp.MustCompile("`--"+regexp.QuoteMeta(f.Name)+"[` ]").MatchString(text) {
				missing = append(missing, c.CommandPath()+" --"+f.Name)
			}
			if f.Shorthand != "" && !strings.Contains(text, "`-"+f.Shorthand+"`") {
				missing = append(missing, c.CommandPath()+" -"+f.Shorthand)
			}
		})
		if c.Name() == "completion" {
			return // its parts are cobra's and the page names them
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	return missing
}

func TestEveryCommandAndFlagIsDocumented(t *testing.T) {
	root := newRoot(&app{})
	root.InitDefaultHelpFlag()
	for _, m := range missingFrom(page(t), root) {
		t.Errorf("docs/hbctl.md does not have %s", m)
	}
	// Positive control: the test sees a command and a flag that are not there.
	extra := &cobra.Command{Use: "undocumented", Run: func(*cobra.Command, []string) {}}
	extra.Flags().Bool("nowhere", false, "")
	root.AddCommand(extra)
	if got := missingFrom(page(t), root); len(got) != 2 {
		t.Errorf("an undocumented command with a flag gives %v", got)
	}
}

func TestEveryJSONKeyIsDocumented(t *testing.T) {
	text := page(t)
	for _, v := range []any{api.Status{}, api.VIP{}, api.Sync{}, api.Node{}, api.Pause{}, api.Result{}, api.Phase{}, api.Plan{},
		api.Operation{}, api.Incident{}, api.Event{}, api.Verdict{}, api.BootstrapRequest{}, api.SwitchoverRequest{},
		api.PauseRequest{}, api.ResumeRequest{}, api.History{}, api.WhyNot{}, api.Check{}, api.CheckRow{}, api.ErrorBody{}, versionInfo{}} {
		typ := reflect.TypeOf(v)
		for i := range typ.NumField() {
			key, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if !strings.Contains(text, "`"+key+"`") {
				t.Errorf("docs/hbctl.md does not have the key %q of %s", key, typ.Name())
			}
		}
	}
}

func TestEveryCommandLeadsWithExamples(t *testing.T) {
	for _, c := range newRoot(&app{}).Commands() {
		if !c.HasExample() {
			t.Errorf("%s has no example", c.CommandPath())
		}
	}
}

func TestExitCodesAreDocumented(t *testing.T) {
	text := page(t)
	for _, code := range []string{"0", "1", "2", "3", "4", "5", "10", "11"} {
		if !strings.Contains(text, "\n| "+code+" | ") {
			t.Errorf("docs/hbctl.md does not have exit code %s", code)
		}
	}
}
