"""Call a program, once or for many inputs."""
