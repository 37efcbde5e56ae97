package sniff

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"golang.org/x/net/http2"
)

func settingsFrame(n int) []byte {
	return frames(func(fr *http2.Framer) {
		s := make([]http2.Setting, n)
		for i := range s {
			s[i] = http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i)}
		}
		fr.WriteSettings(s...)
	})[len(http2.ClientPreface):]
}

// A SETTINGS frame of 21 settings passes, one of 22 does not, however the bytes
// are cut and whatever comes before.
func TestSettingsCheck(t *testing.T) {
	opening := request("application/grpc")
	data := frames(func(fr *http2.Framer) {
		fr.WriteData(1, false, bytes.Repeat(settingsFrame(30), 3)) // a payload is no frame
		fr.WritePing(false, [8]byte{})
	})[len(http2.ClientPreface):]
	for _, tt := range []struct {
		name string
		in   [][]byte
		bad  bool
	}{
		{"none", [][]byte{opening, data}, false},
		{"at the limit", [][]byte{opening, data, settingsFrame(21), settingsFrame(21)}, false},
		{"above it", [][]byte{opening, data, settingsFrame(21), settingsFrame(22)}, true},
		{"first of all", [][]byte{[]byte(http2.ClientPreface), settingsFrame(22)}, true},
	} {
		in := bytes.Join(tt.in, nil)
		for size := 1; size <= len(in); size++ {
			c := settingsCheck{frameScan{skip: len(http2.ClientPreface)}}
			var err error
			for _, piece := range chunks(in, size) {
				if err = c.check(piece); err != nil {
					break
				}
			}
			if errors.Is(err, errSettings) != tt.bad {
				t.Fatalf("%s, in pieces of %d: %v, want failure %v", tt.name, size, err, tt.bad)
			}
		}
	}
}

// What is handed off as gRPC has the check; its server sees an error, and not
// the frame.
func TestHandoffGRPCSettings(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []byte
		cut  int
	}{
		{"whole", request("application/grpc"), 0},
		{"with early SETTINGS", settingsThenRequest, settingsEnd},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, server, _ := handedTCP(t, tt.in, tt.cut)
			if _, err := server.Write(greeting(nil)); err != nil {
				t.Fatal(err)
			}
			go client.Write(settingsFrame(22))
			if _, err := io.Copy(io.Discard, server); !errors.Is(err, errSettings) {
				t.Errorf("read ended with %v, want %v", err, errSettings)
			}
		})
	}
}
