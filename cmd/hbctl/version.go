package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version and revision are set by the linker (-X main.version=...).
var (
	version  = "dev"
	revision = ""
)

// versionInfo is the output of hbctl version.
type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "The version of this program",
		Example: "  hbctl version\n  hbctl version -o json",
		Args:    usage(noArgs),
		RunE: func(*cobra.Command, []string) error {
			v := versionInfo{Version: version, Revision: revision, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if v.Revision == "" {
				v.Revision = builtFrom()
			}
			if a.asJSON() {
				return a.printJSON(v)
			}
			fmt.Fprintf(a.out, "hbctl %s (%s) %s %s\n", v.Version, cell(v.Revision), v.Go, v.Platform)
			return nil
		},
	}
}

// builtFrom is the revision that the Go tool recorded, "" when it recorded none.
func builtFrom() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
