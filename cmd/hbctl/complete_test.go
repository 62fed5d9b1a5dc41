package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/highbase/highbase/cluster/api"
)

// TestCompletion presses TAB: nodes come from the cluster, words from the flags, files from nowhere.
func TestCompletion(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.PathStatus, func(w http.ResponseWriter, _ *http.Request) {
		s := healthyStatus()
		s.Nodes = append(s.Nodes, api.Node{ID: "w1", Role: api.RoleWitness})
		data, err := s.MarshalJSON()
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		if _, err := w.Write(data); err != nil {
			t.Error(err)
		}
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	addr := strings.TrimPrefix(srv.URL, "http://")
	for _, c := range []struct {
		args  []string
		has   []string
		hasNo string
	}{
		{[]string{"--addr", addr, "promote", ""}, []string{"db1\tprimary", "db2\treplica", ":4"}, "w1"},
		{[]string{"--addr", addr, "why-not", ""}, []string{"db3\t"}, "w1"},
		{[]string{"--addr", addr, "promote", "db1", ""}, []string{":4"}, "db2"},
		{[]string{"--addr", "127.0.0.1:1", "promote", ""}, []string{":1"}, "db1"},
		{[]string{"--output", ""}, []string{"table", "json", ":4"}, "status"},
		{[]string{"status", ""}, []string{":4"}, "db1"},
		{[]string{"sandbox", "fault", ""}, []string{"kill-host\t", "partition\t"}, "client"},
		{[]string{"sandbox", "up", "--timing", ""}, []string{"lan", "fast"}, "restart"},
		{[]string{"sandbox", "exec", "client", ""}, []string{":0"}, "db1"},
	} {
		var out, errs bytes.Buffer
		a := &app{in: strings.NewReader(""), out: &out, err: &errs, env: func(string) string { return "" }}
		if code := run(t.Context(), append([]string{"__complete"}, c.args...), a); code != exitDone {
			t.Errorf("%q: code %d: %s", c.args, code, errs.String())
		}
		for _, word := range c.has {
			if !strings.Contains(out.String(), word) {
				t.Errorf("%q lacks %q:\n%s", c.args, word, out.String())
			}
		}
		if strings.Contains(out.String(), c.hasNo) {
			t.Errorf("%q has %q:\n%s", c.args, c.hasNo, out.String())
		}
	}
}
