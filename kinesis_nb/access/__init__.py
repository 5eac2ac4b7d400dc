"""Who may do what: credentials, the configuration of a source, saved sources, IAM policies."""
