//go:build integration

package integration

import (
	"fmt"
	"net"
	"syscall"
)

// announce broadcasts a gratuitous ARP request, which every neighbour's kernel takes
// at once, saying that ip is at mac.
func announce(name string, ip net.IP, mac net.HardwareAddr) error {
	ip = ip.To4()
	if ip == nil {
		return fmt.Errorf("claiming an address: only IPv4 is announced by ARP")
	}
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		return fmt.Errorf("claiming %v: %w", ip, err)
	}
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("claiming %v: opening a packet socket: %w", ip, err)
	}
	defer syscall.Close(fd)
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	var frame []byte
	frame = append(frame, broadcast...)
	frame = append(frame, mac...)
	frame = append(frame, 0x08, 0x06)                  // ARP
	frame = append(frame, 0, 1, 8, 0, 6, 4, 0, 1)      // Ethernet, IPv4, lengths, request
	frame = append(append(frame, mac...), ip...)       // sender
	frame = append(append(frame, broadcast...), ip...) // target
	to := &syscall.SockaddrLinklayer{Ifindex: ifi.Index}
	if err := syscall.Sendto(fd, frame, 0, to); err != nil {
		return fmt.Errorf("claiming %v: %w", ip, err)
	}
	return nil
}
