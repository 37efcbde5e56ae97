package mux

import (
	"io"
	"net/http"
	"time"
)

// bodyStall is how long a request body may stand still while its handler reads
// it. A timeout for the whole of it would cut slow but honest uploads and
// streams; without any, a client that sends nothing holds its handler for ever.
const bodyStall = 30 * time.Second

// stallingBody is a request body whose every Read must bring something within
// bodyStall.
type stallingBody struct {
	io.ReadCloser
	conn *http.ResponseController
}

// limitStall gives r such a body, if it has any.
func limitStall(w http.ResponseWriter, r *http.Request) {
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &stallingBody{r.Body, http.NewResponseController(w)}
	}
}

func (b *stallingBody) Read(p []byte) (int, error) {
	// A server that cannot set deadlines has its own idea of them.
	_ = b.conn.SetReadDeadline(time.Now().Add(bodyStall))
	n, err := b.ReadCloser.Read(p)
	// Between two reads the time is the handler's. After the body, net/http
	// reads on to notice that the client has gone, and a deadline would look
	// just so.
	_ = b.conn.SetReadDeadline(time.Time{})
	return n, err
}
