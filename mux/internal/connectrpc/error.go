package connectrpc

import (
	"strings"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc/status"
)

// connectError is a status as connect takes it, to be written in the words of p.
func connectError(st *status.Status, p protocol) error {
	err := connect.NewError(connect.Code(st.Code()), st.Message())
	for _, d := range st.Proto().GetDetails() {
		detail := &connect.ErrorDetail{Type: d.GetTypeUrl(), Value: d.GetValue()}
		if p == connectUnary || p == connectStream {
			// Connect has the bare name, gRPC the whole URL.
			detail.Type = detail.Type[strings.LastIndexByte(detail.Type, '/')+1:]
		}
		err = err.WithDetail(detail)
	}
	return err
}
