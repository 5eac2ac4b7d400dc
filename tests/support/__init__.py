"""What many tests share: servers, virtual time, places of tables, a notebook's front end."""
