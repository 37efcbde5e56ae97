// Package rest calls methods by HTTP and JSON as their google.api.http options say.
package rest
