package socket

import (
	"context"
	"net/http"
)

// Echo upgrades r and sends every message back in kind, one at a time, until the
// client closes or the server drains.
func (s *Server) Echo(w http.ResponseWriter, r *http.Request) { s.Upgrade(w, r, echo) }

func echo(c *Conn) {
	stop := context.AfterFunc(c.Draining(), func() { c.CloseWith(CloseGoingAway, "server is shutting down") })
	defer stop()
	for {
		m, err := c.Read()
		if err != nil {
			return
		}
		err = c.Write(c.Context(), m.Kind, m.Data)
		m.Release()
		if err != nil {
			return
		}
	}
}
