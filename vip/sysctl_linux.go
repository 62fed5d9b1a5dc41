package vip

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// tuneARP makes the kernel answer for an address only on its own interface (arp_ignore=1) and never name
// it as the sender of a request to others (arp_announce=2). The second matters while the gate is closed:
// a reset needs the client's MAC, and a request naming the VIP would be dropped by the gate.
func tuneARP(iface string) error {
	var errs []error
	for key, value := range map[string]string{"arp_ignore": "1", "arp_announce": "2"} {
		path := filepath.Join("/proc/sys/net/ipv4/conf", iface, key)
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			errs = append(errs, fmt.Errorf("setting %s of %s to %s: %w", key, iface, value, err))
		}
	}
	return errors.Join(errs...)
}
