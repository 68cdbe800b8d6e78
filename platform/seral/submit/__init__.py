"""Sending the files of jobs/ to a cluster: through Ray's job server, or as manifests for Kubernetes."""
