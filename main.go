// Command sidejob is a sidecar that gives any host app a job system it can trust.
package main

func main() {}
