"""What people type in."""

from django import forms


class JoinForm(forms.Form):
    """Who, and where."""

    name = forms.CharField(max_length=40, label="Your name")
    room = forms.SlugField(max_length=60, label="Room", help_text="Letters, digits, - and _.")


class PostForm(forms.Form):
    """A post.  The key makes sure that a post sent twice is said once."""

    text = forms.CharField(max_length=500)
    key = forms.UUIDField()
