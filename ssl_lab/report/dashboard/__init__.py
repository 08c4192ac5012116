"""One run live, and a thousand side by side: a page that a small server or a folder of files feeds."""
