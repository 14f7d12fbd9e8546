"""General helpers: files, command lines, parallel work, random draws."""
