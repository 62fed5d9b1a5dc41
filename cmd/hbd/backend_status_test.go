package main

import "testing"

func TestServerName(t *testing.T) {
	for raw, want := range map[string]string{
		"10.11.19-MariaDB-0+deb12u1-log":        "MariaDB 10.11.19",
		"5.5.5-10.6.18-MariaDB-1:10.6.18+maria": "MariaDB 10.6.18",
		"9.7.4":                                 "MySQL 9.7.4",
		"8.0.36-0ubuntu0.22.04.1":               "MySQL 8.0.36",
		"":                                      "",
		"MariaDB 10.11.19":                      "MariaDB 10.11.19",
	} {
		if got := serverName(raw); got != want {
			t.Errorf("serverName(%q) = %q, want %q", raw, got, want)
		}
	}
}
